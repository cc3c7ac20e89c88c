"use strict";
// A simulated heap: a list of blocks in address order and four ways to choose a hole.

const GRAIN = 16;

class Block {
  constructor(start, size, used) {
    this.start = start; this.size = size; this.used = used;
    this.before = null; this.after = null; this.owner = 0;
  }
}

class Heap {
  constructor(name, choose) {
    this.name = name;
    this.choose = choose;
    this.first = new Block(0, 0, true);      // a sentinel, so every block has one before it
    this.last = this.first;
    this.rover = this.first;
    this.holes = new Set();
    this.end = 0;
    this.live = 0;
    this.probes = 0;
  }

  allocate(size, owner) {
    const need = Math.ceil(Math.max(size, 1) / GRAIN) * GRAIN;
    let block = this.choose(this, need);
    if (block === null) {
      block = new Block(this.end, need, true);
      block.before = this.last;
      this.last.after = block;
      this.last = block;
      this.end += need;
    } else {
      this.holes.delete(block);
      if (block.size > need) {
        const rest = new Block(block.start + need, block.size - need, false);
        rest.before = block; rest.after = block.after;
        if (rest.after) rest.after.before = rest; else this.last = rest;
        block.after = rest;
        block.size = need;
        this.holes.add(rest);
      }
      block.used = true;
    }
    block.owner = owner;
    this.rover = block;
    this.live += block.size;
    return block;
  }

  release(block) {
    this.live -= block.size;
    block.used = false;
    const after = block.after, before = block.before;
    if (after && !after.used) this.join(block, after);
    if (!before.used) { this.join(before, block); block = before; }
    this.holes.add(block);
  }

  join(left, right) {
    this.holes.delete(right);
    left.size += right.size;
    left.after = right.after;
    if (right.after) right.after.before = left; else this.last = left;
    if (this.rover === right) this.rover = left;
  }

  /** 1 - largest hole / all holes */
  fragmentation() {
    let all = 0, largest = 0;
    for (const hole of this.holes) { all += hole.size; if (hole.size > largest) largest = hole.size; }
    return all === 0 ? 0 : 1 - largest / all;
  }

  /** The address range as `cells` numbers: 0 for a hole, else the size of the block there. */
  picture(cells, span) {
    const out = new Uint32Array(cells);
    for (let b = this.first.after; b; b = b.after) {
      if (!b.used) continue;
      const from = Math.floor(b.start / span * cells);
      const to = Math.min(cells, Math.max(from + 1, Math.floor((b.start + b.size) / span * cells)));
      for (let i = from; i < to; i++) out[i] = b.size;
    }
    return out;
  }
}

const POLICIES = {
  "first fit": (heap, need) => {
    let best = null;
    for (const hole of heap.holes) {
      heap.probes++;
      if (hole.size >= need && (best === null || hole.start < best.start)) best = hole;
    }
    return best;
  },
  "best fit": (heap, need) => {
    let best = null;
    for (const hole of heap.holes) {
      heap.probes++;
      if (hole.size >= need && (best === null || hole.size < best.size)) {
        best = hole;
        if (hole.size === need) break;
      }
    }
    return best;
  },
  "next fit": (heap, need) => {
    const stop = heap.rover;
    let b = stop, steps = 0;
    do {
      heap.probes++;
      if (!b.used && b.size >= need) return b;
      b = b.after || heap.first;
    } while (b !== stop && ++steps < 400);
    return null;
  },
  "worst fit": (heap, need) => {
    let best = null;
    for (const hole of heap.holes) {
      heap.probes++;
      if (hole.size >= need && (best === null || hole.size > best.size)) best = hole;
    }
    return best;
  },
};
