"use strict";
// Numbers that look random and are the same in every run: a 32-bit xorshift generator.

// A fault must show in the picture, or a broken page would count as a recorded one.
window.addEventListener("error", (fault) => {
  document.body.prepend(Object.assign(document.createElement("pre"), { className: "fault", textContent: String(fault.message) }));
});

class Source {
  constructor(seed) { this.state = seed >>> 0 || 1; }
  next() {
    let x = this.state;
    x ^= x << 13; x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5; x >>>= 0;
    return (this.state = x);
  }
  below(n) { return this.next() % n; }
  unit() { return this.next() / 4294967296; }
  /** Small values often, large ones rarely: uniform in the exponent. */
  skewed(low, high) { return Math.floor(low * Math.pow(high / low, this.unit() * this.unit())); }
  pick(list) { return list[this.below(list.length)]; }
  shuffle(list) {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }
}

/** FNV-1a over the UTF-16 units of a string: a short name for a long text. */
function digest(text) {
  let h = 2166136261;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  return (h >>> 0).toString(16).padStart(8, "0");
}

/** `1234567` as `1,234,567`, without asking the locale. */
function grouped(n) { return String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ","); }

function bytes(n) {
  if (n >= 1048576) return (n / 1048576).toFixed(1) + " MiB";
  if (n >= 1024) return (n / 1024).toFixed(1) + " KiB";
  return n + " B";
}
