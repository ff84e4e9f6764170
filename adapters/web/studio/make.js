// Form for a job: its fields depend on the abilities of the chosen model.

import { get, modelPath, post } from "./api.js";
import { control } from "./control.js";
import { $, adjusted, h, iconButton, toast } from "./dom.js";
import { allJobs, feed } from "./feed.js";
import { inputs } from "./inputs.js";
import { inversions } from "./inversions.js";
import { wholeNumber } from "./numbers.js";
import { sampling } from "./sampling.js";

const ASPECTS = [["1:1", 1, 1], ["4:3", 4, 3], ["3:2", 3, 2], ["16:9", 16, 9], ["3:4", 3, 4], ["2:3", 2, 3], ["9:16", 9, 16]];
const STORAGE_KEY = "make";

let models = [];
let vaes = [];
let embeddings = [];
let loras = [];

export const known = () => models;
export const model = () => models.find((one) => one.title === $("model").value) ?? null;
const can = () => model()?.capabilities ?? null;
const CFG = { min: 1, max: 30, step: 0.5 }; // as A1111's slider
const ANY = { default_px: 1024, step_px: 16, min_px: 64, max_px: 8192, max_pixels: 8847360 };

/** The nearest edge length that the chosen model supports, given the other edge. */
const rounded = (px, other = 1) => {
  const its = can() ?? ANY, step = its.step_px, at = (edge) => edge * step;
  const most = Math.min(its.max_px, its.max_pixels / other);
  return Math.max(at(Math.ceil(its.min_px / step)), Math.min(at(Math.floor(most / step)), at(Math.round(px / step))));
};

export const prompts = () => {
  const text = $("prompt").value.trim();
  return $("lines").checked ? text.split("\n").map((line) => line.trim()).filter(Boolean) : text ? [text] : [];
};

// ---- models --------------------------------------------------------------------------------------

export async function loadModels() {
  ({ models, vaes, embeddings } = (await Promise.all([get("/models"), loadLoras()]))[0]);
  const chosen = $("model").value, before = savedForm().model;  // a choice made meanwhile has precedence
  const drawing = models.filter((one) => one.capabilities.task === "generate");
  const here = drawing.filter((one) => one.downloaded && !one.unavailable);
  const away = drawing.filter((one) => !here.includes(one));
  const option = (one) => h("option", { value: one.title, disabled: Boolean(one.unavailable) }, one.title);
  $("model").replaceChildren(
    h("optgroup", { label: "On this machine" }, here.map(option)),
    away.length ? h("optgroup", { label: "Not downloaded" }, away.map(option)) : "");
  const first = drawing.find((one) => one.title === chosen && !one.unavailable)
    ?? here.find((one) => one.title === before) ?? here.find((one) => one.default) ?? here[0];
  if (first) $("model").value = first.title;
  fit(false);
  document.dispatchEvent(new CustomEvent("models", { detail: models }));
}

async function loadLoras() {
  loras = (await get("/loras")).loras.filter((one) => !one.trouble);
}

/** LoRAs that fit the chosen model, as far as is known. Those of a model fit it at any number of bits. */
function fitting() {
  const own = model()?.alias_of ?? model()?.title, whole = own?.replace(/-\d-bit$/, "");
  return loras.filter((one) => !one.models.length || one.models.includes(own) || one.models.includes(whole));
}

/** Set the guidance: in steps, but a value between two of them is kept, since the images differ. */
function setGuidance(value) {
  const [least, most] = can().guidance_range, sampled = can().samplers.length > 0;
  const min = sampled ? Math.min(Math.max(least, CFG.min), value) : least, step = sampled ? CFG.step : 0.1;
  const steps = (value - min) / step, isStep = Math.abs(steps - Math.round(steps)) < 1e-6;
  Object.assign($("guidance"), { min, max: Math.min(most, sampled ? CFG.max : 20), step: isStep ? step : "any", value });
  $("guidance-label").textContent = sampled ? "CFG scale" : "Guidance";
}

/** Show the fields of the chosen model. `fresh`: it was chosen just now, so its defaults are set. */
function fit(fresh) {
  const one = model(), its = can();
  if (!its) return;
  $("model-note").textContent = `${one.unavailable ?? one.description} · ${one.licence}`;
  $("model-pull").hidden = one.downloaded || Boolean(one.unavailable) || Boolean(one.download);
  $("model-pull").querySelector("span").textContent = `Not on this machine yet: download ${one.size_gb} GB`;
  Object.assign($("steps"), { min: its.min_steps, max: its.max_steps });
  for (const id of ["width", "height"]) {
    Object.assign($(id), { min: rounded(its.min_px), max: rounded(its.max_px), step: its.step_px });
    if ($(id).value) $(id).value = rounded(Number($(id).value), id === "height" ? Number($("width").value) || 1 : 1);
  }
  setGuidance(fresh || !$("width").value ? its.default_guidance : Number($("guidance").value));
  $("guidance-field").hidden = !its.guidance;
  $("negative-field").hidden = !its.negative_prompt;
  $("loras").hidden = !its.lora || fitting().length === 0;
  for (const row of [...$("lora-rows").children])
    if (!fitting().some((other) => other.name === row.querySelector("select").value)) row.remove();
  sampling.offer(one, vaes);
  inversions.offer(its, embeddings);
  inputs.offer(its);
  control.offer(its);
  if (fresh || !$("width").value) {
    $("steps").value = its.default_steps;
    $("width").value = $("height").value = its.default_px;
  }
  show();
}

function show() {
  $("steps-value").textContent = $("steps").value;
  const guidance = $("guidance").value;
  $("guidance-value").textContent = guidance.includes(".") ? guidance : `${guidance}.0`;
  const width = Number($("width").value), height = Number($("height").value), its = can();
  for (const button of $("aspects").children) {
    const [w, hgt] = button.dataset.size.split("x").map(Number);
    const [aw, ah] = sized(w, hgt);
    const is = (width === aw && height === ah) || Math.abs(width / height - w / hgt) < 0.02;
    button.setAttribute("aria-checked", String(is));
    button.tabIndex = is ? 0 : -1;
  }
  const buttons = [...$("aspects").children];
  if (!buttons.some((button) => button.tabIndex === 0)) buttons[0].tabIndex = 0;
  const native = its?.native_px;
  $("size-note").textContent = native && (width !== native || height !== native)
    ? `This model draws at ${native} × ${native}; the picture is fitted to the size.` : "";
  const many = prompts().length, count = Number($("count").value) || 1, all = many * count;
  $("lines-count").textContent = $("lines").checked && many ? `${many} ${many === 1 ? "job" : "jobs"}` : "";
  $("draw-text").textContent = all > 1 ? `Draw ${all} pictures` : "Draw";
  keep();
}

function aspects() {
  for (const [name, w, hgt] of ASPECTS) {
    const shape = h("i", { class: "shape" });
    shape.style.aspectRatio = `${w} / ${hgt}`;
    shape.style[w >= hgt ? "width" : "height"] = "18px";
    const button = h("button", { type: "button", role: "radio", "aria-checked": "false", dataset: { size: `${w}x${hgt}` },
      onclick: () => choose(w, hgt) }, shape, h("span", {}, name));
    $("aspects").append(button);
  }
  $("aspects").addEventListener("keydown", (event) => {
    const go = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!go) return;
    event.preventDefault();
    const all = [...$("aspects").children];
    const next = all[(all.indexOf(document.activeElement) + go + all.length) % all.length];
    next.click();
    next.focus();
  });
}

/** Width and height of an aspect ratio, with the model's default number of pixels. */
function sized(w, hgt) {
  const base = (can() ?? ANY).default_px, scale = Math.sqrt(w * hgt);
  return [rounded((base * w) / scale), rounded((base * hgt) / scale)];
}

function choose(w, hgt) {
  [$("width").value, $("height").value] = sized(w, hgt);
  show();
}

// ---- LoRAs ---------------------------------------------------------------------------------------

/** `textScale`: scale of its changes of text encoders, where that differs. */
function addLora(name = null, scale = null, textScale = null) {
  const first = fitting().find((one) => one.name === name) ?? fitting()[0];
  scale ??= first?.preferred_scale ?? 1;
  const note = h("p", { class: "note" });
  const words = () => {
    const one = loras.find((other) => other.name === choice.value);
    note.textContent = [one?.activation_text ?? (one?.trigger_words.length ? `Trigger words: ${one.trigger_words.join(", ")}` : null),
      textScale === null ? null : `Text encoder: ${textScale}`].filter(Boolean).join(" · ");
  };
  const value = h("output", {}, Number(scale).toFixed(2));
  const choice = h("select", { "aria-label": "LoRA", onchange: () => { textScale = null; delete row.dataset.textScale; words(); keep(); } }, fitting().map((one) => h("option", { value: one.name }, `${one.title ?? one.name}${one.downloaded ? "" : " (on the hub)"}`)));
  if (name) choice.value = name;
  words();
  const row = h("div", { class: "row lora", dataset: textScale === null ? {} : { textScale } }, choice,
    h("input", { type: "range", min: -4, max: 4, step: 0.05, value: scale, "aria-label": "Scale of the LoRA",
      oninput: (event) => { value.textContent = Number(event.target.value).toFixed(2); keep(); } }), value,
    iconButton("close", "Remove this LoRA", () => { row.remove(); keep(); }), note);
  $("lora-rows").append(row);
  keep();
}

const chosenLoras = () => [...$("lora-rows").children].map((row) =>
  ({ name: row.querySelector("select").value, scale: Number(row.querySelector("input").value),
    ...(row.dataset.textScale === undefined ? {} : { text_encoder_scale: Number(row.dataset.textScale) }) }));

// ---- submit --------------------------------------------------------------------------------------

async function body(prompt) {
  const its = can(), used = its.lora ? chosenLoras() : [];
  return {
    prompt,
    model: $("model").value,
    width: Number($("width").value),
    height: Number($("height").value),
    steps: Number($("steps").value),
    ...(its.guidance ? { guidance: Number($("guidance").value) } : {}),
    ...(its.negative_prompt && $("negative").value.trim() ? { negative_prompt: $("negative").value.trim() } : {}),
    ...($("seed").value === "" ? {} : { seed: wholeNumber($("seed").value) }),
    num_images: Number($("count").value) || 1,
    ...($("low-ram").checked ? { low_ram: true } : {}),
    ...(used.length ? { loras: used } : {}),
    ...sampling.fields(),
    ...(await inputs.fields()),
    ...(await control.fields()),
    preview: true,
  };
}

let sending = false;

/** `memory`: "try" runs the job even if it seems not to fit into memory. */
async function send(event, memory = null) {
  event.preventDefault();
  if (sending) return;
  refuse("");
  const texts = prompts();
  if (!texts.length) { $("prompt").focus(); return; }
  sending = true;
  $("draw").classList.add("busy");
  try {
    for (const prompt of texts) {
      const fields = await body(prompt);
      const job = await post("/generate", { ...fields, ...(memory ? { memory } : {}) });
      for (const a of job.adjustments) toast(adjusted(a));
      mine.set(job.job_id, { shown: 0, model: fields.model });
      const current = allJobs().find((one) => one.job_id === job.job_id);
      if (current) showAdjustments(current);
      else void showLater(job);
    }
  } catch (error) {
    refuse(error.name === "TypeError" ? "The gateway does not answer." : error.message, error.short);
  } finally {
    sending = false;
    $("draw").classList.remove("busy");
  }
}

const mine = new Map(); // jobs of this tab: their model, which an event may precede, and how many later adjustments were shown

function showAdjustments(job, ended = false) {
  const own = mine.get(job.job_id);
  if (!own) return;
  for (const a of (job.newAdjustments ?? []).slice(own.shown)) {
    toast(adjusted(a), { seconds: 12 });
    if (a.param === "prompt" && a.used === null) showAbilities(own.model);
  }
  own.shown = job.newAdjustments?.length ?? 0;
  if (ended) mine.delete(job.job_id);
}

/** Show the later adjustments of a job that the page does not know: it may have ended before its submission was answered. */
async function showLater(job) {
  const now = await get(`/jobs/${job.job_id}?images=false`).catch(() => null);
  if (now) showAdjustments({ ...now, newAdjustments: now.adjustments.slice(job.adjustments.length) }, now.completed_at !== null);
}

const explained = new Set(); // models whose abilities were shown

/** Show what a model with a fixed list of things can draw, and the best fitting model that draws more. */
async function showAbilities(title) {
  const draws = models.find((one) => one.title === title)?.capabilities.draws ?? [];
  if (!draws.length || explained.has(title)) return;
  explained.add(title);
  const system = await get("/system").catch(() => null);
  if (!system) { explained.delete(title); return; }
  const other = system.default_model.any_prompt;
  const use = () => { $("model").value = other; $("model").dispatchEvent(new Event("change")); };
  toast(`${title} draws ${draws.join(", ")}.${other ? ` ${other} draws any prompt and fits this machine.` : ""}`,
    { seconds: 30, action: other ? [`Use ${other}`, use] : null });
}

/** `triable`: a button offers to run the job anyway. */
function refuse(text, triable = false) {
  $("refusal").textContent = text;
  $("try").hidden = !triable;
}

// ---- settings of an image, and saved settings ----------------------------------------------------------

/** Set the form to the settings of an image; numbers that are missing there stay as they are. */
export async function useSettings(drawing) {
  const there = models.find((one) => one.title === drawing.model);
  if (there && !there.unavailable) $("model").value = drawing.model;
  else if (drawing.model) toast(`The model ${drawing.model} is not on this machine; the settings are used with ${$("model").value}.`);
  $("lines").checked = false;
  $("negative").value = drawing.negative_prompt ?? "";
  fit(false);
  for (const name of ["prompt", "width", "height", "steps", "seed"])
    if (drawing[name] !== undefined) $(name).value = drawing[name];
  if (drawing.guidance !== undefined) setGuidance(drawing.guidance);
  sampling.restore(drawing);
  $("count").value = 1;
  $("lora-rows").replaceChildren();
  for (const one of drawing.loras ?? [])
    if (fitting().some((other) => other.name === one.name)) addLora(one.name, one.scale, one.text_encoder_scale ?? null);
    else toast(`The LoRA ${one.name} is not on this machine.`);
  await Promise.all([inputs.restore(drawing), control.restore(drawing)]);
  show();
  document.body.dataset.view = "make";
  document.dispatchEvent(new Event("view"));
  $("prompt").focus();
}

function savedForm() {
  try { return JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {}; } catch { return {}; }
}

const FIELDS = ["prompt", "negative", "width", "height", "steps", "guidance", "seed", "count"];

function keep() {
  const values = Object.fromEntries(FIELDS.map((id) => [id, $(id).value]));
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify({ ...values, model: $("model").value, lines: $("lines").checked, lowRam: $("low-ram").checked }));
  } catch { /* then it is lost with the tab */ }
}

export function begin() {
  aspects();
  const before = savedForm();
  for (const id of FIELDS) if (before[id] && id !== "steps" && id !== "guidance") $(id).value = before[id];
  $("lines").checked = Boolean(before.lines);
  $("low-ram").checked = Boolean(before.lowRam);
  feed.addEventListener("job", ({ detail }) => showAdjustments(detail.job, detail.ended));
  $("make").addEventListener("submit", send);
  $("make").addEventListener("input", show);
  $("try").addEventListener("click", (event) => send(event, "try"));
  $("model").addEventListener("change", () => fit(true));
  $("model-pull").addEventListener("click", () => post(`${modelPath(model())}/pull`).then(loadModels)
    .catch((error) => toast(error.status ? error.message : "The gateway does not answer.", { kind: "bad" })));
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("make").requestSubmit();
  });
  $("swap").addEventListener("click", () => {
    [$("width").value, $("height").value] = [$("height").value, $("width").value];
    show();
  });
  for (const [id, other] of [["width", "height"], ["height", "width"]])
    $(id).addEventListener("change", () => { $(id).value = rounded(Number($(id).value), Number($(other).value) || 1); show(); });
  $("dice").addEventListener("click", () => { $("seed").value = ""; show(); });
  $("lora-add").addEventListener("click", () => addLora());
  if (/Mac|iP/.test(navigator.platform)) $("draw").querySelector("kbd").textContent = "⌘ ↵";
  return loadModels().then(() => {
    if (before.model === $("model").value) {
      if (before.steps) $("steps").value = before.steps;
      if (before.guidance) setGuidance(Number(before.guidance));
      show();
    }
  });
}
