// The page: a photo goes to the server once for each model; threshold, layers and hiding work on the answer, here.

import { Scene, says } from "/scene.js";
import { setUpWebcam } from "/webcam.js";

const LEAST_SCORE = 0.05; // asked of the server; the slider chooses among these
const find = (id) => document.getElementById(id);

let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
if (token) history.replaceState(null, "", location.pathname);
let models = [];
let current = null; // { blob, name }
let scenes = [];
let asked = 0; // only the newest request's answer is shown

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) {
    find("token-form").hidden = false;
    find("token").focus();
  }
  const body = await answer.text();
  let sentence = `the server answered ${answer.status}`;
  try { sentence = JSON.parse(body).error ?? sentence; } catch { /* not of our server: the status says enough */ }
  throw new Error(sentence);
}

function fail(sentence) {
  find("error").textContent = sentence;
  find("error").hidden = !sentence;
  if (sentence) find("status").textContent = "";
}

async function start() {
  try {
    const known = await (await call("/api/models")).json();
    models = known.models;
    find("token-form").hidden = true;
    fail("");
    fillChoices();
    predict(); // a photo may have been chosen before the models were known
    await fillSamples(known.samples);
  } catch (error) {
    fail(error.message);
  }
}

function fillChoices() {
  for (const id of ["model", "other"]) {
    const select = find(id);
    select.replaceChildren(...(id === "other" ? [new Option("no other model", "")] : []));
    for (const { name } of models) select.add(new Option(name, name));
  }
}

async function fillSamples(count) {
  find("samples").replaceChildren();
  for (let number = 0; number < count; number++) {
    const blob = await (await call(`/api/samples/${number}.png`)).blob();
    const button = document.createElement("button");
    const image = new Image();
    button.type = "button";
    image.src = URL.createObjectURL(blob);
    image.alt = `sample ${number + 1}`;
    button.append(image);
    button.addEventListener("click", () => take(blob, `sample ${number + 1}`));
    find("samples").append(button);
  }
}

function take(blob, name) {
  current = { blob, name };
  predict();
}

async function ask(name) {
  const query = new URLSearchParams({ model: name, score: LEAST_SCORE, masks: "polygons" });
  const form = new FormData();
  form.append("image", current.blob, current.name);
  return (await call(`/api/predict?${query}`, { method: "POST", body: form })).json();
}

async function predict() {
  if (!current || !models.length) return;
  const mine = ++asked;
  fail("");
  find("status").textContent = `${current.name}: asking the model …`;
  const names = [find("model").value, find("other").value].filter((name, at, all) => name && all.indexOf(name) === at);
  try {
    const bitmap = await createImageBitmap(current.blob).catch(() => null);
    const answers = await Promise.all(names.map(ask));
    if (mine !== asked) return;
    show(answers, bitmap);
    if (!bitmap) fail("This browser cannot show the photo's format; what was found is drawn without it.");
  } catch (error) {
    if (mine !== asked) return;
    scenes = [];
    find("views").replaceChildren();
    fail(error.message);
  }
}

function show(answers, bitmap) {
  find("views").replaceChildren();
  scenes = answers.map((answer) => {
    const root = find("view").content.firstElementChild.cloneNode(true);
    const model = models.find(({ name }) => name === answer.model);
    const scene = new Scene(root, bitmap, answer.photos[0], model, update, tip);
    root.querySelector(".save-json").addEventListener("click", () => {
      save(new Blob([scene.json()], { type: "application/json" }), `${model.name}.json`);
    });
    root.querySelector(".save-picture").addEventListener("click", () => {
      scene.picture().toBlob((blob) => save(blob, `${model.name}.png`), "image/png");
    });
    find("views").append(root);
    return scene;
  });
  update();
}

function update() {
  const threshold = Number(find("threshold").value);
  find("threshold-value").textContent = threshold.toFixed(2);
  const layers = {};
  for (const check of document.querySelectorAll("[data-layer]")) layers[check.dataset.layer] = check.checked;
  for (const scene of scenes) scene.update(threshold, layers);
  if (!scenes.length) return;
  const counts = scenes.map((scene) => {
    const shown = scene.visible().filter(({ kind }) => kind === "instance").length;
    const parts = scene.model.classes.length ? [`${shown} of ${scene.photo.instances.length} objects`] : [];
    if (scene.photo.segments) parts.push(`${scene.photo.segments.length} segments`);
    return `${scene.model.name}: ${parts.join(", ")}`;
  });
  find("status").textContent = `${current.name} · ${counts.join(" · ")}`;
}

function tip(shape, at) {
  const box = find("tip");
  box.hidden = !shape;
  if (!shape) return;
  box.textContent = says(shape);
  const x = at.clientX ?? at.left;
  const y = at.clientY ?? at.top;
  box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.offsetWidth - 4))}px`;
  box.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - box.offsetHeight - 4))}px`;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value;
  start();
});
find("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) take(file, file.name);
  event.target.value = ""; // the same file may be chosen again
});
for (const id of ["model", "other"]) find(id).addEventListener("change", predict);
find("threshold").addEventListener("input", update);
for (const check of document.querySelectorAll("[data-layer]")) check.addEventListener("change", update);
find("show-all").addEventListener("click", () => { scenes.forEach((scene) => scene.showAll()); update(); });

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) take(file, file.name);
  });
}
setUpWebcam(find, take, fail);
start();
