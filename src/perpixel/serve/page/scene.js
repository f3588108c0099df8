// One photo with what one model found in it: shapes of an SVG over a canvas, and the same as a picture to keep.

const SVG = "http://www.w3.org/2000/svg";
const LEAST_JOINT = 0.2; // as pictures of the command line have it
const SMALLEST_SIDE = 640; // of a picture to keep

function make(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

const outline = (polygons) =>
  polygons.flat().map((ring) => `M${ring.map(([x, y]) => `${x} ${y}`).join("L")}Z`).join("");

export const says = (shape) => {
  const score = shape.thing === false ? "" : ` ${shape.score.toFixed(2)}`;
  return `${shape.class_name}${score}, ${Math.round(shape.area).toLocaleString("en")} px`;
};

export class Scene {
  // `root`: a copy of the template; `changed`: called when the user hides or shows a shape; `hovered(shape or null, event)`.
  constructor(root, bitmap, photo, model, changed, hovered) {
    Object.assign(this, { root, bitmap, photo, model, changed, hovered });
    this.svg = root.querySelector("svg");
    this.hidden = new Set();
    this.threshold = 0;
    this.layers = {};
    root.querySelector("h2").textContent = model.name;
    const canvas = root.querySelector("canvas");
    [canvas.width, canvas.height] = [photo.width, photo.height];
    if (bitmap) canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
    this.svg.setAttribute("aria-label", `found by ${model.name}`);
    const segments = (photo.segments ?? []).map((shape) => ({ shape, kind: "segment" }));
    const instances = photo.instances.map((shape) => ({ shape, kind: "instance" }));
    this.entries = [...segments, ...instances];
    // Large ones first: the small ones stay on top and can be pointed at.
    for (const entry of [...segments, ...instances.sort((a, b) => b.shape.area - a.shape.area)]) this.draw(entry);
    this.fillList();
  }

  draw(entry) {
    const { shape, kind } = entry;
    const group = make(this.svg, "g", { class: `shape ${kind}`, tabindex: 0, role: "button", "aria-label": `${says(shape)}; hide` });
    if (shape.polygons) {
      group.classList.add("masked");
      make(group, "path", { class: "mask", d: outline(shape.polygons), fill: shape.color, stroke: shape.color });
    }
    if (shape.box) {
      const [left, top, right, bottom] = shape.box;
      make(group, "rect", { class: "box", x: left, y: top, width: right - left, height: bottom - top, stroke: shape.color });
    }
    const points = make(group, "g", { class: "points" });
    for (const [a, b] of this.limbs(shape)) {
      make(points, "line", { class: "limb", x1: a[0], y1: a[1], x2: b[0], y2: b[1], stroke: shape.color });
    }
    const radius = Math.max(1.5, Math.min(this.photo.width, this.photo.height) / 120);
    for (const [x, y] of this.joints(shape)) make(points, "circle", { class: "joint", cx: x, cy: y, r: radius, fill: shape.color });
    group.addEventListener("pointermove", (event) => this.hovered(shape, event));
    group.addEventListener("pointerleave", () => this.hovered(null));
    group.addEventListener("focus", () => this.hovered(shape, group.getBoundingClientRect()));
    group.addEventListener("blur", () => this.hovered(null));
    const hide = () => this.toggle(entry);
    group.addEventListener("click", hide);
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); hide(); }
    });
    entry.group = group;
  }

  joints(shape) {
    return (shape.keypoints ?? []).filter(([, , score]) => score > LEAST_JOINT);
  }

  limbs(shape) {
    const points = shape.keypoints;
    if (!points) return [];
    return this.model.skeleton.map(([a, b]) => [points[a], points[b]]).filter((pair) => pair.every((p) => p[2] > LEAST_JOINT));
  }

  fillList() {
    const list = this.root.querySelector(".list");
    for (const entry of this.entries) {
      const row = document.createElement("li");
      const label = document.createElement("label");
      entry.check = document.createElement("input");
      entry.check.type = "checkbox";
      entry.check.checked = true;
      entry.check.addEventListener("change", () => this.toggle(entry));
      const swatch = make(label, "svg", { class: "swatch", viewBox: "0 0 1 1", "aria-hidden": "true" });
      make(swatch, "rect", { width: 1, height: 1, rx: 0.2, fill: entry.shape.color });
      const text = document.createElement("span");
      text.textContent = says(entry.shape);
      label.prepend(entry.check);
      label.append(text);
      row.append(label);
      list.append(row);
      entry.row = row;
    }
  }

  toggle(entry) {
    if (!this.hidden.delete(entry)) this.hidden.add(entry);
    entry.check.checked = !this.hidden.has(entry);
    this.hovered(null);
    this.changed();
  }

  above({ shape, kind }) {
    return kind === "segment" || shape.score >= this.threshold;
  }

  visible() {
    return this.entries.filter((entry) => this.above(entry) && !this.hidden.has(entry));
  }

  update(threshold, layers) {
    Object.assign(this, { threshold, layers });
    for (const [name, shown] of Object.entries(layers)) this.svg.classList.toggle(`no-${name}`, !shown);
    for (const entry of this.entries) {
      entry.row.classList.toggle("out", !this.above(entry));
      entry.group.classList.toggle("out", !this.above(entry) || this.hidden.has(entry));
    }
  }

  showAll() {
    this.hidden.clear();
    for (const entry of this.entries) entry.check.checked = true;
  }

  // What is shown, in the form of the server's answer.
  json() {
    const shown = (kind) => this.visible().filter((entry) => entry.kind === kind).map((entry) => entry.shape);
    const photo = { ...this.photo, instances: shown("instance") };
    if (photo.segments) photo.segments = shown("segment");
    return JSON.stringify({ model: this.model.name, photos: [photo] });
  }

  // What is shown, as a canvas; a small photo is enlarged.
  picture() {
    const { width, height } = this.photo;
    const scale = Math.max(1, Math.ceil(SMALLEST_SIDE / Math.max(1, Math.min(width, height))));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width * scale, height * scale];
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.scale(scale, scale);
    if (this.bitmap) pen.drawImage(this.bitmap, 0, 0);
    const line = Math.max(2, (Math.min(width, height) * scale) / 260) / scale;
    // As on the page: segments below, then large objects before small ones; letters over all of them.
    const order = this.visible().sort((a, b) => (b.kind === "segment") - (a.kind === "segment") || b.shape.area - a.shape.area);
    for (const entry of order) this.paint(pen, entry, line);
    if (this.layers.boxes) for (const { shape } of order) if (shape.box) this.letter(pen, shape, line);
    return canvas;
  }

  paint(pen, { shape, kind }, line) {
    pen.fillStyle = pen.strokeStyle = shape.color;
    pen.lineWidth = line;
    if (shape.polygons && (kind === "segment" ? this.layers.segments : this.layers.masks)) {
      pen.globalAlpha = kind === "segment" ? 0.6 : 0.4;
      pen.fill(new Path2D(outline(shape.polygons)), "evenodd");
      pen.globalAlpha = 1;
      pen.lineWidth = line / 2;
      pen.stroke(new Path2D(outline(shape.polygons)));
      pen.lineWidth = line;
    }
    if (shape.box && this.layers.boxes) {
      const [left, top, right, bottom] = shape.box;
      pen.strokeRect(left, top, right - left, bottom - top);
    }
    if (!this.layers.keypoints) return;
    for (const [a, b] of this.limbs(shape)) {
      pen.beginPath();
      pen.moveTo(a[0], a[1]);
      pen.lineTo(b[0], b[1]);
      pen.stroke();
    }
    for (const [x, y] of this.joints(shape)) {
      pen.beginPath();
      pen.arc(x, y, 1.5 * line, 0, 2 * Math.PI);
      pen.fill();
    }
  }

  letter(pen, shape, line) {
    const [left, top] = shape.box;
    const text = `${shape.class_name} ${shape.score.toFixed(2)}`;
    pen.font = `${6 * line}px sans-serif`;
    const y = Math.max(0, top - 8 * line);
    pen.fillStyle = shape.color;
    pen.fillRect(left, y, pen.measureText(text).width + 2 * line, 8 * line);
    pen.fillStyle = "#000";
    pen.fillText(text, left + line, y + 6.2 * line);
  }
}
