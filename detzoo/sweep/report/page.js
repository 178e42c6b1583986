"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  // ---- The scatter.
  const plot = byId("plot");
  if (!plot) return;
  const [xSelect, ySelect, deviceSelect, logCheck] = ["x", "y", "device", "log"].map(byId);
  const MARGIN = { left: 62, right: 16, top: 14, bottom: 46 };
  let shown = [], current = -1;

  const element = (name, attributes, parent) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };

  // The shapes of matplotlib's markers, around 0, 0.
  const shapes = {
    o: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
    s: (r) => polygon([[-1, -1], [1, -1], [1, 1], [-1, 1]], 0.88 * r),
    "^": (r) => polygon([[0, -1.15], [1.05, 0.85], [-1.05, 0.85]], r),
    v: (r) => polygon([[0, 1.15], [1.05, -0.85], [-1.05, -0.85]], r),
    "<": (r) => polygon([[-1.15, 0], [0.85, 1.05], [0.85, -1.05]], r),
    ">": (r) => polygon([[1.15, 0], [-0.85, 1.05], [-0.85, -1.05]], r),
    D: (r) => polygon([[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]], r),
    P: (r) => polygon([[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1],
      [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]], r),
    X: (r) => polygon([[-1, -0.5], [-0.5, -1], [0, -0.5], [0.5, -1], [1, -0.5], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5],
      [-0.5, 1], [-1, 0.5], [-0.5, 0]], 1.1 * r),
    "*": (r) => star(5, r), p: (r) => polygon(Array.from({ length: 5 }, (_, i) => corner(i / 5, 1.1)), r),
  };
  function corner(turn, radius) { return [radius * Math.sin(2 * Math.PI * turn), -radius * Math.cos(2 * Math.PI * turn)]; }
  function star(n, r) { return polygon(Array.from({ length: 2 * n }, (_, i) => corner(i / (2 * n), i % 2 ? 0.55 : 1.3)), r); }
  function polygon(corners, r) { return "M" + corners.map(([x, y]) => `${(x * r).toFixed(2)},${(y * r).toFixed(2)}`).join("L") + "Z"; }

  const words = (value) => Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));

  function scale(values, from, to, wantLog) {
    let low = Math.min(...values), high = Math.max(...values);
    const isLog = wantLog && low > 0 && high / low >= 4;
    if (isLog) {
      const margin = 0.06 * Math.log10(high / low);
      low = Math.log10(low) - margin; high = Math.log10(high) + margin;
    } else {
      const margin = 0.07 * (high - low) || 0.5 * Math.abs(high) || 1;
      low = low >= 0 ? Math.max(0, low - margin) : low - margin; high += margin;
    }
    const place = (value) => from + ((isLog ? Math.log10(value) : value) - low) / (high - low) * (to - from);
    return { place, ticks: isLog ? logTicks(low, high) : plainTicks(low, high, Math.abs(to - from) / 70) };
  }
  function logTicks(low, high) {
    const found = [], steps = high - low < 3.5 ? [1, 2, 5] : [1];
    for (let power = Math.floor(low); power <= high; power++)
      for (const step of steps) {
        const tick = Math.log10(step) + power;
        if (tick >= low && tick <= high) found.push(step * 10 ** power);
      }
    return found;
  }
  function plainTicks(low, high, wanted) {
    const rough = (high - low) / Math.max(2, wanted), power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let index = Math.ceil(low / step); index * step <= high; index++) found.push(index * step);
    return found;
  }

  // Points that nothing beats in both, by rising x; equal ones together.
  function frontier(points) {
    const sorted = [...points].sort((a, b) => a.vx - b.vx || b.vy - a.vy), found = [];
    for (const point of sorted) {
      const last = found[found.length - 1];
      if (!last || point.vy > last.vy || (point.vy === last.vy && point.vx === last.vx)) found.push(point);
    }
    return found;
  }

  function draw() {
    const x = data.xs[xSelect.selectedIndex], y = data.ys[ySelect.selectedIndex], device = deviceSelect.value;
    const remembered = shown[current] && shown[current].index;
    const width = Math.max(300, plot.clientWidth || 700), height = Math.round(Math.min(560, Math.max(300, 0.62 * width)));
    plot.replaceChildren();
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", tabindex: "0",
      "aria-label": `${y.label} against ${x.label}; arrow keys go from point to point` }, plot);
    shown = data.points.map((point, index) => ({ ...point, index, vx: point.values[x.name], vy: point.values[y.name] }))
      .filter((point) => point.device === device && point.vx !== null && point.vy !== null)
      .map((point) => ({ ...point, vx: point.vx * x.factor, vy: point.vy * y.factor }))
      .sort((a, b) => a.vx - b.vx || a.vy - b.vy);
    if (!shown.length) {
      element("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, svg).textContent = "no point has both values";
      return select(-1);
    }
    const xs = scale(shown.map((point) => point.vx), MARGIN.left, width - MARGIN.right, logCheck.checked);
    const ys = scale(shown.map((point) => point.vy), height - MARGIN.bottom, MARGIN.top, logCheck.checked && y.log);
    for (const tick of xs.ticks) {
      const at = xs.place(tick);
      element("line", { x1: at, x2: at, y1: MARGIN.top, y2: height - MARGIN.bottom, class: "grid" }, svg);
      element("text", { x: at, y: height - MARGIN.bottom + 17, "text-anchor": "middle" }, svg).textContent = words(tick);
    }
    for (const tick of ys.ticks) {
      const at = ys.place(tick);
      element("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: "grid" }, svg);
      element("text", { x: MARGIN.left - 7, y: at + 4, "text-anchor": "end" }, svg).textContent = words(tick);
    }
    element("path", { d: `M${MARGIN.left},${MARGIN.top}V${height - MARGIN.bottom}H${width - MARGIN.right}`, fill: "none", class: "axis" }, svg);
    element("text", { x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 8, "text-anchor": "middle" }, svg).textContent = x.label;
    element("text", { transform: `translate(14 ${(height - MARGIN.bottom + MARGIN.top) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg).textContent = y.label;
    for (const point of shown) { point.x = xs.place(point.vx); point.y = ys.place(point.vy); }
    if (y.better === "more") {
      const best = frontier(shown);
      element("path", { class: "frontier", d: best.map((point, i) => i ? `H${point.x}V${point.y}` : `M${point.x},${point.y}`).join("") }, svg);
    }
    const radius = width < 480 ? 4 : 5.5;
    shown.forEach((point, place) => {
      const shape = (shapes[point.marker] || shapes.o)(radius);
      element("path", { d: shape, transform: `translate(${point.x} ${point.y})`, class: "point", "data-place": place,
        stroke: point.colour, fill: point.tint ? "var(--card)" : point.colour, role: "img", "aria-label": point.label }, svg);
    });
    element("path", { class: "halo", d: "", id: "halo" }, svg);
    const nearest = (event, most) => {
      const box = svg.getBoundingClientRect(), ratio = width / box.width;
      const px = (event.clientX - box.left) * ratio, py = (event.clientY - box.top) * ratio;
      let best = -1, least = most * ratio;
      shown.forEach((point, place) => {
        const distance = Math.hypot(point.x - px, point.y - py);
        if (distance < least) { best = place; least = distance; }
      });
      return best;
    };
    const over = (event) => { const place = nearest(event, event.pointerType === "touch" ? 40 : 22); if (place >= 0) select(place); };
    svg.addEventListener("pointermove", over);
    svg.addEventListener("pointerdown", over);
    svg.addEventListener("focus", () => { if (current < 0) select(0); });
    svg.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
      const ends = { Home: 0, End: shown.length - 1 };
      if (event.key in steps) select((current + steps[event.key] + shown.length) % shown.length);
      else if (event.key in ends) select(ends[event.key]);
      else return;
      event.preventDefault();
    });
    select(shown.findIndex((point) => point.index === remembered));
  }

  function select(place) {
    current = place;
    const row = byId("row"), halo = byId("halo");
    row.replaceChildren();
    const add = (name, text, parent = row) => { const made = document.createElement(name); made.textContent = text; parent.append(made); return made; };
    if (place < 0) {
      if (halo) halo.setAttribute("d", "");
      add("p", "Point at a marker, tap it, or walk with the arrow keys: its row is shown here.").className = "hint";
      return;
    }
    const point = shown[place];
    halo.setAttribute("d", shapes.o(10));
    halo.setAttribute("transform", `translate(${point.x} ${point.y})`);
    add("h3", point.label);
    const list = add("dl", "");
    data.columns.forEach((heading, column) => {
      if (!point.cells[column]) return;
      add("dt", heading, list);
      add("dd", point.cells[column], list);
    });
    if (point.command) add("pre", point.command);
  }

  function legend() {
    const box = byId("legend");
    for (const [label, colour, marker] of data.legend) {
      const entry = document.createElement("span");
      const svg = element("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, entry);
      element("path", { d: (shapes[marker] || shapes.o)(4.6), fill: colour, stroke: colour }, svg);
      entry.append(label);
      box.append(entry);
    }
  }

  for (const control of [xSelect, ySelect, deviceSelect, logCheck]) control.addEventListener("change", draw);
  let waiting = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); });
  legend();
  draw();
})();
