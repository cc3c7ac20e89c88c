"use strict";
// The program whose heap is shown: phases of building up, steady churn and tearing down.

/** A list of events `{kind, id, size, was}` in which every block that is freed was allocated before. */
function makeEvents(count, seed) {
  const source = new Source(seed);
  const events = [];
  const live = [];
  let id = 0;
  for (let i = 0; i < count; i++) {
    const phase = i / count;
    const target = 500 + 1100 * Math.abs(Math.sin(phase * 9.42)) * (0.4 + phase);
    const roll = source.unit();
    if (live.length < 8 || (roll < 0.5 + (target - live.length) / 2000 && live.length < 2400)) {
      const size = source.below(400) === 0 ? 16384 + source.below(49152) : source.skewed(16, 4096);
      const block = { id: id++, size, born: i };
      live.push(block);
      events.push({ kind: "malloc", id: block.id, size, was: 0 });
    } else {
      // Young blocks die first, as they do in most programs.
      const back = Math.min(live.length - 1, Math.floor(live.length * Math.pow(source.unit(), 3)));
      const at = live.length - 1 - back;
      const block = live[at];
      if (roll > 0.96) {
        const grown = Math.min(262144, Math.ceil(block.size * 1.6));
        events.push({ kind: "realloc", id: block.id, size: grown, was: block.size });
        block.size = grown;
      } else {
        live[at] = live[live.length - 1];
        live.pop();
        events.push({ kind: "free", id: block.id, size: block.size, was: 0 });
      }
    }
  }
  return events;
}

/** Runs the events through one heap; samples and pictures are taken at even distances. */
function run(events, name, samples, moments) {
  const heap = new Heap(name, POLICIES[name]);
  const where = new Map();
  const series = [];
  const snapshots = [];
  const every = Math.floor(events.length / samples);
  const pictureAt = new Set(moments.map((m) => Math.floor(m * (events.length - 1))));
  let requested = 0, peakLive = 0;
  events.forEach((event, i) => {
    if (event.kind === "malloc") {
      where.set(event.id, heap.allocate(event.size, event.id));
      requested += event.size;
    } else if (event.kind === "free") {
      heap.release(where.get(event.id));
      where.delete(event.id);
      requested -= event.size;
    } else {
      const fresh = heap.allocate(event.size, event.id);
      heap.release(where.get(event.id));
      where.set(event.id, fresh);
      requested += event.size - event.was;
    }
    if (requested > peakLive) peakLive = requested;
    if (i % every === 0) series.push({ at: i, live: requested, end: heap.end, broken: heap.fragmentation() });
    if (pictureAt.has(i)) snapshots.push({ at: i, blocks: structuredBlocks(heap) });
  });
  return { name, heap, series, snapshots, peakLive, blocks: where.size };
}

/** A copy of the heap's blocks that later events leave alone. */
function structuredBlocks(heap) {
  const copy = [];
  for (let b = heap.first.after; b; b = b.after) copy.push({ start: b.start, size: b.size, used: b.used, owner: b.owner });
  return copy;
}

/** Lifetimes in events, and the size classes (four in each power of two). */
function measure(events) {
  const born = new Map(), classes = new Map(), finished = [];
  events.forEach((event, i) => {
    if (event.kind === "malloc") {
      born.set(event.id, { at: i, size: event.size });
      const low = classOf(event.size);
      const entry = classes.get(low) || { low, blocks: 0, bytes: 0, freed: 0, lifetime: 0, sizes: [] };
      entry.blocks++; entry.bytes += event.size; entry.sizes.push(event.size);
      classes.set(low, entry);
    } else if (event.kind === "free") {
      const b = born.get(event.id);
      const entry = classes.get(classOf(b.size));
      entry.freed++; entry.lifetime += i - b.at;
      finished.push({ id: event.id, size: b.size, lifetime: i - b.at });
      born.delete(event.id);
    }
  });
  return { classes: [...classes.values()].sort((a, b) => a.low - b.low), finished, immortal: born.size };
}

function classOf(size) {
  if (size < 16) return 0;
  const power = 31 - Math.clz32(size);
  const step = 1 << (power - 2);
  return size - (size % step);
}
