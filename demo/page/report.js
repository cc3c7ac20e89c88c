"use strict";
// Puts the page together: runs the work, fills the sections, churns the document.

const EVENTS = 60000;
const MOMENTS = [0.1, 0.3, 0.5, 0.75, 0.98];

function element(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function fillTable(id, headings, rows, classOfRow) {
  const table = document.getElementById(id);
  table.append(element("thead", null, element("tr", null, ...headings.map((h) => element("th", null, h)))));
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr", classOfRow ? { class: classOfRow(row) } : null);
    for (const cell of row) line.append(element("td", null, cell));
    body.append(line);
  }
  table.append(body);
}

const events = makeEvents(EVENTS, 20080714);
const runs = Object.keys(POLICIES).map((name) => run(events, name, 600, MOMENTS));
const found = measure(events);
const words = countWords(SEED);

function tiles() {
  const allocations = events.filter((e) => e.kind === "malloc").length;
  const short = found.finished.filter((f) => f.lifetime < 100).length;
  const figures = [
    [grouped(EVENTS), "events"],
    [grouped(allocations), "blocks allocated"],
    [bytes(runs[0].peakLive), "peak of live bytes"],
    [(100 * short / allocations).toFixed(1) + " %", "die within 100 events"],
    [grouped(found.immortal), "blocks never freed"],
    [bytes(Math.min(...runs.map((r) => r.heap.end))), "smallest heap"],
  ];
  for (const [value, label] of figures) {
    document.getElementById("tiles").append(element("div", { class: "tile" }, element("b", null, value), element("span", null, label)));
  }
}

function maps() {
  const into = document.getElementById("maps");
  into.append(element("span", { class: "name" }));
  for (const moment of MOMENTS) into.append(element("span", { class: "when" }, `after ${grouped(moment * EVENTS)} events`));
  for (const r of runs) {
    into.append(element("span", { class: "name" }, r.name));
    for (const snapshot of r.snapshots) {
      into.append(element("img", { src: pictureOf(snapshot.blocks, r.heap.end), width: "190", height: "72", alt: `${r.name} at event ${snapshot.at}` }));
    }
  }
}

function tables() {
  fillTable("policies", ["policy", "heap", "over live", "holes", "broken up", "probes"], runs.map((r) => [
    r.name, bytes(r.heap.end), (r.heap.end / r.peakLive).toFixed(2) + " x", grouped(r.heap.holes.size),
    (100 * r.series.reduce((sum, s) => sum + s.broken, 0) / r.series.length).toFixed(1) + " %", grouped(r.heap.probes),
  ]));
  fillTable("words", ["word", "count", "vowels", "kind"], words.filter((w) => w.word.length > 3).slice(0, 5).map((w) => [
    w.word, String(w.count), String(w.vowels), w.code ? "code" : "prose",
  ]));
  const most = Math.max(...found.classes.map((c) => c.bytes));
  fillTable("classes", ["from", "blocks", "bytes", "median", "freed", "mean lifetime", "share of bytes"], found.classes.map((c) => {
    c.sizes.sort((a, b) => a - b);
    return [
      bytes(c.low), grouped(c.blocks), grouped(c.bytes), grouped(c.sizes[c.sizes.length >> 1]), grouped(c.freed),
      c.freed ? grouped(c.lifetime / c.freed) : "-", element("span", { class: "bar", style: `width:${(220 * c.bytes / most).toFixed(1)}px` }),
    ];
  }));
  let live = 0;
  fillTable("log", ["event", "call", "block", "size", "was", "live bytes", "name"], events.slice(0, 1400).map((e, i) => {
    live += e.kind === "malloc" ? e.size : e.kind === "free" ? -e.size : e.size - e.was;
    return [String(i), e.kind, "#" + e.id, grouped(e.size), e.was ? grouped(e.was) : "", grouped(live), digest(e.kind + e.id + ":" + e.size)];
  }), (row) => row[1]);
}

/** Builds a list, then inserts, removes, reorders and restyles its nodes, asking for layout in between. */
function churn() {
  const list = document.getElementById("churn");
  const source = new Source(4711);
  const longest = [...found.finished].sort((a, b) => b.lifetime - a.lifetime || a.id - b.id).slice(0, 900);
  const item = (f) => element("li", { style: `--hue:${f.id % 360}`, "data-lifetime": String(f.lifetime), "data-id": String(f.id) },
    element("i"), `#${f.id} `, element("span", null, `${grouped(f.lifetime)} events`));
  let height = 0;
  for (let round = 0; round < 6; round++) {
    list.replaceChildren();
    const fragment = document.createDocumentFragment();
    for (const f of source.shuffle([...longest])) fragment.append(item(f));
    list.append(fragment);
    height += list.offsetHeight;
    for (let i = 0; i < 500; i++) {
      const nodes = list.children;
      const from = nodes[source.below(nodes.length)], to = nodes[source.below(nodes.length)];
      if (i % 5 === 0) from.replaceWith(from.cloneNode(true));
      else if (i % 5 === 1) { from.lastElementChild.textContent += " "; from.classList.toggle("kept"); }
      else if (i % 5 === 2) to.insertAdjacentHTML("afterend", `<li class="passing"><i></i>#${i} <b>passing</b></li>`);
      else list.insertBefore(from, to);
    }
    height += list.offsetHeight;
    for (const node of list.querySelectorAll(".passing")) node.remove();
  }
  const sorted = [...list.children].sort((a, b) => b.dataset.lifetime - a.dataset.lifetime || a.dataset.id - b.dataset.id);
  sorted.forEach((node, i) => { node.className = i < 25 ? "kept" : ""; list.append(node); });
  while (list.children.length > 600) list.lastElementChild.remove();
  return { height, left: list.children.length };
}

/** Data out and in again: JSON, typed arrays, base64, URI, structured clones, maps, big strings. */
function trips() {
  const rows = [];
  const note = (what, amount, name, same) => rows.push([what, amount, name, same ? "same" : "DIFFERENT"]);

  const tree = { runs: runs.map((r) => ({ name: r.name, series: r.series })), classes: found.classes, words, events: events.slice(0, 20000) };
  let text = JSON.stringify(tree);
  for (let i = 0; i < 4; i++) text = JSON.stringify(JSON.parse(text), null, i % 2 ? 0 : 1);
  note("JSON, four times", `${grouped(text.length)} characters`, digest(text), text === JSON.stringify(tree));

  const coded = new TextEncoder().encode(text);
  note("UTF-8", `${grouped(coded.length)} bytes`, digest(text.slice(0, 50000)), new TextDecoder().decode(coded) === text);

  let binary = "";
  for (let i = 0; i < 120000; i++) binary += String.fromCharCode(coded[i]);
  const armoured = btoa(binary);
  note("base64", `${grouped(armoured.length)} characters`, digest(armoured), atob(armoured) === binary);

  const clone = structuredClone(tree);
  note("structured clone", `${grouped(clone.events.length)} objects`, digest(JSON.stringify(clone.classes)), JSON.stringify(clone) === JSON.stringify(tree));

  const source = new Source(99), numbers = new Float64Array(120000);
  for (let i = 0; i < numbers.length; i++) numbers[i] = source.unit();
  const parts = [];
  for (let i = 0; i < numbers.length; i += 1000) parts.push(numbers.slice(i, i + 1000).sort());
  const merged = Float64Array.from(parts.flatMap((p) => [...p])).sort();
  note("typed arrays, sorted in parts", `${grouped(merged.length)} numbers`, digest(String(merged[60000])), merged.every((v, i) => i === 0 || merged[i - 1] <= v));

  const index = new Map();
  for (let i = 0; i < 60000; i++) {
    const key = "k" + source.below(9000);
    if (!index.has(key)) index.set(key, []);
    index.get(key).push({ i, half: i / 2 });
  }
  const keys = [...index.keys()].sort();
  note("map of lists", `${grouped(index.size)} keys`, digest(keys.join()), keys.reduce((sum, k) => sum + index.get(k).length, 0) === 60000);

  const rewritten = rewrite(SEED, 40);
  const back = decodeURIComponent(encodeURIComponent(rewritten.text));
  note("text rewritten 40 times", `${grouped(rewritten.units)} characters`, digest(rewritten.text), back === rewritten.text);

  const markup = document.getElementById("classes").outerHTML;
  const parsed = new DOMParser().parseFromString(`<!DOCTYPE html><body>${markup.repeat(12)}`, "text/html");
  note("markup, parsed", `${grouped(parsed.querySelectorAll("td").length)} cells`, digest(markup), parsed.querySelector("table").outerHTML === markup);

  const moved = churn();
  note("list items moved about", `${grouped(moved.left)} left`, digest(document.getElementById("churn").textContent), moved.left === 600 && moved.height > 0);

  fillTable("trips", ["what", "amount", "name", "back again"], rows);
}

tiles();
drawTimeline(document.getElementById("timeline"), runs, EVENTS);
drawSizes(document.getElementById("sizes"), found.classes);
drawHeat(document.getElementById("heat"), found.finished);
maps();
tables();
trips();
