"use strict";
// Charts: canvas for curves and pictures, SVG for bars.

const COLOURS = ["#2f6f9f", "#d9793b", "#4f9d69", "#9a5fa8"];

function drawTimeline(canvas, runs, count) {
  const g = canvas.getContext("2d");
  const left = 64, right = 130, top = 10, bottom = 24;
  const width = canvas.width - left - right, height = canvas.height - top - bottom;
  const most = Math.max(...runs.map((r) => Math.max(...r.series.map((s) => s.end))));
  const x = (at) => left + width * at / count;
  const y = (value) => top + height * (1 - value / most);
  g.font = "11px sans-serif";
  g.strokeStyle = "#e6e0d6";
  g.fillStyle = "#5b6b78";
  g.textAlign = "right";
  for (let i = 0; i <= 4; i++) {
    const value = most * i / 4;
    g.beginPath(); g.moveTo(left, y(value)); g.lineTo(left + width, y(value)); g.stroke();
    g.fillText(bytes(Math.round(value)), left - 6, y(value) + 4);
  }
  g.textAlign = "center";
  for (let i = 0; i <= 6; i++) g.fillText(grouped(count * i / 6), x(count * i / 6), canvas.height - 7);

  const shade = g.createLinearGradient(0, top, 0, top + height);
  shade.addColorStop(0, "rgba(20,50,74,.45)");
  shade.addColorStop(1, "rgba(20,50,74,.10)");
  g.fillStyle = shade;
  g.beginPath();
  g.moveTo(x(0), y(0));
  for (const s of runs[0].series) g.lineTo(x(s.at), y(s.live));
  g.lineTo(x(runs[0].series.at(-1).at), y(0));
  g.closePath();
  g.fill();

  runs.forEach((run, i) => {
    g.strokeStyle = COLOURS[i];
    g.lineWidth = 2;
    g.beginPath();
    run.series.forEach((s, k) => (k ? g.lineTo(x(s.at), y(s.end)) : g.moveTo(x(s.at), y(s.end))));
    g.stroke();
    g.fillStyle = COLOURS[i];
    g.fillRect(left + width + 18, top + 22 * i + 6, 14, 10);
    g.textAlign = "left";
    g.fillText(run.name, left + width + 38, top + 22 * i + 15);
  });
  g.fillStyle = "rgba(20,50,74,.4)";
  g.fillRect(left + width + 18, top + 22 * runs.length + 6, 14, 10);
  g.fillStyle = "#5b6b78";
  g.fillText("live bytes", left + width + 38, top + 22 * runs.length + 15);
}

const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function drawSizes(into, classes) {
  const width = 560, height = 260, left = 44, bottom = 26;
  const most = Math.max(...classes.map((c) => c.blocks));
  const step = (width - left - 4) / classes.length;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%" });
  const fade = svg("linearGradient", { id: "fade", x1: 0, y1: 0, x2: 0, y2: 1 },
    svg("stop", { offset: 0, "stop-color": "#2f6f9f" }), svg("stop", { offset: 1, "stop-color": "#8fb9d4" }));
  root.append(svg("defs", {}, fade));
  for (let i = 0; i <= 4; i++) {
    const y = (height - bottom) * (1 - i / 4) + 6 * (i / 4);
    root.append(svg("line", { class: "axis", x1: left, x2: width, y1: y, y2: y }));
    root.append(svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, grouped(most * i / 4)));
  }
  classes.forEach((c, i) => {
    const h = (height - bottom - 6) * c.blocks / most;
    const bar = svg("rect", { x: left + i * step + 1, y: height - bottom - h, width: Math.max(1, step - 2), height: h, fill: "url(#fade)", rx: 1 });
    bar.append(svg("title", {}, `${c.low} bytes: ${c.blocks} blocks`));
    root.append(bar);
    if ((c.low & (c.low - 1)) === 0) root.append(svg("text", { x: left + (i + 0.5) * step, y: height - 8, "text-anchor": "middle" }, c.low >= 1024 ? c.low / 1024 + "K" : String(c.low)));
  });
  into.append(root);
}

function drawHeat(canvas, finished) {
  const columns = 56, rows = 26, cells = new Float64Array(columns * rows);
  const longest = Math.log2(1 + finished.reduce((m, f) => Math.max(m, f.lifetime), 1));
  for (const f of finished) {
    const cx = Math.min(columns - 1, Math.floor(Math.log2(f.lifetime + 1) / longest * columns));
    const cy = Math.min(rows - 1, Math.max(0, Math.floor((Math.log2(f.size) - 4) / 12 * rows)));
    cells[cy * columns + cx]++;
  }
  const most = Math.log1p(cells.reduce((a, b) => Math.max(a, b), 0));
  const g = canvas.getContext("2d");
  const image = g.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const cy = rows - 1 - Math.floor(y / canvas.height * rows), cx = Math.floor(x / canvas.width * columns);
      const v = Math.log1p(cells[cy * columns + cx]) / most;
      const r = 250 - 230 * v, gr = 246 - 190 * v, b = 238 - 150 * v;
      pixels[y * canvas.width + x] = 0xff000000 | (b << 16) | (gr << 8) | r;
    }
  }
  g.putImageData(image, 0, 0);
}

/** One heap picture, painted pixel by pixel and handed over as a PNG. */
function pictureOf(blocks, span) {
  const width = 190, height = 72;
  const canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  const g = canvas.getContext("2d");
  const image = g.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer).fill(0xffe4ebef);
  for (const b of blocks) {
    const from = Math.floor(b.start / span * width * height);
    const to = Math.max(from + 1, Math.floor((b.start + b.size) / span * width * height));
    const t = Math.min(1, Math.max(0, (Math.log2(b.size) - 4) / 11));
    const colour = b.used ? 0xff000000 | ((160 - 100 * t) << 16) | ((110 + 10 * t) << 8) | (47 + 190 * t) : 0xfff4f8fa;
    pixels.fill(colour, from, to);
  }
  g.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}
