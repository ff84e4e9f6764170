// Sampling of Stable Diffusion: sampler, schedule, VAE, clip skip, and what else the settings of an image contain.

import { $, h, toast } from "./dom.js";

const STORAGE_KEY = "sampling";
const MODELS_MOST = 100; // models whose choices are remembered
const AUTOMATIC = "Automatic", NONE = "None";
const VAE_TEXTS = { [AUTOMATIC]: AUTOMATIC, [NONE]: "Its own" };
const CLIP_SKIPS = Array.from({ length: 12 }, (_, at) => String(at + 1));
const CONTROLS = ["sampler", "schedule", "vae", "clip-skip"];

let title = null; // the model whose choices are shown
let its = null; // its capabilities
let vaes = [];
let further = {}; // fields of the request that the form has no control for

function remembered() {
  try { return JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {}; } catch { return {}; }
}

function remember() {
  if (!its?.samplers.length) return;
  const { [title]: before, ...others } = remembered();
  const newest = Object.entries({ ...others, [title]: chosen() }).slice(-MODELS_MOST);
  try { localStorage.setItem(STORAGE_KEY, JSON.stringify(Object.fromEntries(newest))); } catch { /* then they are lost with the tab */ }
}

const isScheduled = () => !its.unscheduled_samplers.includes($("sampler").value);

/** The values of the controls, as the field `sampling` of a request. */
function chosen() {
  const clipSkip = Number($("clip-skip").value);
  return {
    ...further,
    sampler: $("sampler").value,
    ...(isScheduled() ? { schedule: $("schedule").value } : {}),
    ...($("vae").value === AUTOMATIC ? {} : { vae: $("vae").value }),
    ...(its.clip_skip && clipSkip > 1 ? { clip_skip: clipSkip } : {}),
  };
}

/** Set the controls to the field `sampling` of a request. Returns the names that are not among the choices. */
function set({ sampler, schedule, vae, clip_skip: clipSkip, ...others }) {
  const unknown = [];
  const choose = (id, value, standard) => {
    const there = [...$(id).options].find((option) => option.value === value || option.value.replace(/\.\w+$/, "") === value);
    if (value && !there) unknown.push(value);
    $(id).value = there?.value ?? standard;
  };
  choose("sampler", sampler, its.default_sampler);
  choose("schedule", schedule, its.default_schedule);
  choose("vae", vae, AUTOMATIC);
  choose("clip-skip", clipSkip && String(clipSkip), "1");
  further = Object.fromEntries(Object.entries(others).filter(([name, value]) => value !== null && !(name === "random_source" && value === "CPU")));
  show();
  return unknown;
}

function show() {
  $("schedule").disabled = !isScheduled();
  $("clip-skip-field").hidden = !its.clip_skip;
  $("vae-field").hidden = vaes.length === 0;
  const texts = Object.entries(further).map(([name, value]) => `${name.replaceAll("_", " ")} ${value === true ? "on" : value === false ? "off" : value}`);
  $("further").hidden = texts.length === 0;
  $("further-text").textContent = texts.length ? `From the picture: ${texts.join(", ")}.` : "";
}

const fill = (id, names, texts = {}) => $(id).replaceChildren(...names.map((name) => h("option", { value: name }, texts[name] ?? name)));

export const sampling = {
  /** Show the controls for a model; its own choices where it is another one than before. */
  offer(model, files) {
    const before = its?.samplers.length && title === model.title ? chosen() : null;
    title = model.title;
    its = model.capabilities;
    vaes = files;
    $("sampling").hidden = its.samplers.length === 0;
    if (!its.samplers.length) return;
    fill("sampler", its.samplers);
    fill("schedule", its.schedules);
    fill("vae", [AUTOMATIC, NONE, ...vaes], VAE_TEXTS);
    set(before ?? remembered()[title] ?? {});
  },

  /** The sampling field of a request. */
  fields: () => (its?.samplers.length ? { sampling: chosen() } : {}),

  /** Restore the sampling of an image; without one, everything stays as it is. */
  restore(drawing) {
    if (!its?.samplers.length || !drawing.sampling) return;
    const { sampler, schedule, ...others } = drawing.sampling;
    const unknown = set({ sampler: sampler ?? drawing.sampler, schedule: schedule ?? drawing.scheduler, ...others });
    if (unknown.length) toast(`Not available here: ${unknown.join(", ")}. The default is used.`);
    remember();
  },
};

fill("clip-skip", CLIP_SKIPS);
for (const id of CONTROLS) $(id).addEventListener("change", () => { show(); remember(); });
$("further-remove").addEventListener("click", () => { further = {}; show(); remember(); $("sampler").focus(); });
