// Models: which are on disk, in memory or downloading; and the state of the engine in the header.

import { call, get, modelPath, post } from "./api.js";
import { $, amount, dialog, h, iconButton, span, textButton, toast } from "./dom.js";
import { allJobs, feed, linkNow } from "./feed.js";
import { known, loadModels } from "./make.js";

const GROUPS = { memory: "In memory", downloading: "Downloading", disk: "On disk", hub: "To download", closed: "Not available" };

let system = null;
let paintPanel = () => {};

export async function look() {
  try { system = await get("/system"); } catch { /* the banner shows it */ }
  paint();
  paintPanel();
}

function paint() {
  const link = linkNow(), engine = system?.engine;
  const down = engine && ["down", "failed"].includes(engine.state);
  $("engine").dataset.state = link !== "live" ? "away" : down ? "down" : "up";
  const gb = system?.mlx_memory_gb;
  $("engine-text").textContent = link === "away" ? "Reconnecting" : link === "key" ? "Needs a key" : link !== "live" ? "Connecting"
    : down ? engine.reason ?? "The engine is down"
      : [system?.active_model ?? "No model loaded", gb >= 0.1 ? `${gb.toFixed(gb < 10 ? 1 : 0)} GB` : null].filter(Boolean).join(" · ");
  $("engine").title = engine?.device ?? "";
}

// ---- one model -----------------------------------------------------------------------------------

const own = (one) => one.alias_of ?? one.title;

/** Its download as {job_id, done_bytes, total_bytes, bytes_per_second, eta_seconds}, from the newest events. */
function downloadOf(one) {
  const jobs = allJobs(), name = own(one);
  const job = jobs.find((other) => other.type === "download" && other.model === name);
  const progress = jobs.map((other) => other.progress_detail?.download && other.progress_detail)
    .find((detail) => detail?.download.model === name);
  if (!job && !progress && (!one.download || one.downloaded)) return null;
  return { job_id: job?.job_id ?? one.download?.job_id, ...one.download, ...progress?.download, eta_seconds: progress?.eta_seconds ?? one.download?.eta_seconds };
}

const groupOf = (one, download) => (system?.active_model === own(one) ? "memory" : download ? "downloading"
  : one.unavailable ? "closed" : one.downloaded ? "disk" : "hub");

/** Run `work` and show `message`. `again`: offered instead if `work` is refused for lack of memory. */
async function act(work, message, again = null) {
  try {
    await work();
    if (message) toast(message);
  } catch (error) {
    const action = error.short && again ? ["Try anyway", () => act(again, message)] : null;
    toast(error.status ? error.message : "The gateway does not answer.", { kind: "bad", action });
  }
}

const reload = () => Promise.all([look(), loadModels()]);

function confirmRemoval(one) {
  const box = dialog(`Remove ${one.title}?`, {}, h("div", { class: "ask" },
    h("p", {}, `Its weights (${one.size_gb} GB) are deleted from the disk. They can be downloaded again.`),
    h("button", { type: "button", class: "draw", onclick: () => {
      box.close();
      void act(() => call("DELETE", modelPath(one)).then(reload), `${one.title} was removed from the disk.`);
    } }, "Remove")));
}

/** Buttons of a row. `whole`: no earlier row has the same weights. */
function buttonsOf(one, group, download, whole) {
  const name = one.title;
  if (one.alias_of || group === "closed") return [];
  if (group === "downloading")
    return download.job_id ? [textButton("close", "Cancel", () => act(() => call("DELETE", `/jobs/${download.job_id}`).then(reload),
      "The downloaded part is kept for the next try."), { "aria-label": `Cancel the download of ${name}` })] : [];
  if (group === "hub")
    return [textButton("save", "Download", () => act(() => post(`${modelPath(one)}/pull`).then(reload)), { "aria-label": `Download ${name}, ${one.size_gb} GB` })];
  if (group === "memory")
    return [textButton("close", "Unload", () => act(() => post(`${modelPath(one)}/unload`).then(look), `${name} is being unloaded.`), { "aria-label": `Unload ${name}` })];
  return [textButton("play", "Load", () => act(() => post(`${modelPath(one)}/load`), `${name} will be loaded in its turn.`,
    () => post(`${modelPath(one)}/load?memory=try`)), { "aria-label": `Load ${name}` }),
    whole && one.removable && iconButton("bin", `Remove ${name} from the disk`, () => confirmRemoval(one), { class: "plain square danger" })];
}

/** A row; its elements are replaced only if `shape` changes, so that focus stays. */
class Row {
  constructor() {
    this.shape = "";
    this.bar = h("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, h("i", {}));
    this.amount = h("span", {});
    this.li = h("li", { class: "model" });
  }

  paint(one, whole) {
    const download = downloadOf(one), group = groupOf(one, download);
    const shape = [group, download?.job_id, one.downloaded, one.unavailable, whole && one.removable].join();
    if (shape !== this.shape) {
      this.shape = shape;
      this.li.dataset.state = group;
      this.bar.setAttribute("aria-label", `Download of ${one.title}`);
      const tags = [`${one.size_gb} GB`, one.stored_bits && `${one.stored_bits} bit`, one.licence, one.gated && !one.downloaded && "Accept the licence on the hub first"];
      this.li.replaceChildren(h("div", { class: "column" }, h("p", { class: "title" }, one.title),
        h("p", { class: "muted" }, one.unavailable ?? (one.alias_of ? `Alias of ${one.alias_of}.` : one.description)),
        group === "downloading" ? this.bar : null,
        h("p", { class: "facts" }, group === "downloading" ? this.amount : tags.filter(Boolean).map((text) => h("span", {}, text)))),
      h("div", { class: "row" }, buttonsOf(one, group, download, whole).filter(Boolean)));
    }
    if (download) {
      const share = download.total_bytes ? download.done_bytes / download.total_bytes : 0;
      this.bar.firstChild.style.transform = `scaleX(${share.toFixed(4)})`;
      this.bar.setAttribute("aria-valuenow", Math.floor(share * 100));
      this.amount.textContent = `${amount(download)}${download.eta_seconds ? ` · ${span(download.eta_seconds)}` : ""}`;
    }
    return group;
  }
}

// ---- the panel -----------------------------------------------------------------------------------

function meter(label) {
  const text = h("span", { class: "muted" });
  const bar = h("div", { class: "progress large", role: "meter", "aria-label": label, "aria-valuemin": 0 }, h("i", {}));
  const box = h("div", { class: "field" }, h("div", { class: "row" }, h("span", {}, label), h("span", { class: "grow" }), text), bar);
  return { box, set: (used, total) => {
    text.textContent = `${used < 1 ? `${Math.round(used * 1000)} MB` : `${used.toFixed(1)} GB`} of ${total.toFixed(0)} GB`;
    bar.setAttribute("aria-valuemax", total);
    bar.setAttribute("aria-valuenow", used);
    bar.firstChild.style.transform = `scaleX(${Math.min(1, used / total).toFixed(3)})`;
  } };
}

async function show() {
  await reload().catch(() => {});
  const rows = new Map(), list = h("div", { class: "models" }), none = h("p", { class: "muted" }, "No matches.");
  const find = h("input", { type: "search", placeholder: "Search models", "aria-label": "Search models", oninput: () => paintPanel() });
  const standard = h("p", { class: "note", id: "default-model" });
  const machine = meter("Memory of this machine"), engine = meter("Used by the engine");
  const sections = Object.entries(GROUPS).map(([group, label]) => {
    const rows = h("ul", { class: "models-rows", "aria-label": label });
    return { group, rows, box: h("section", {}, h("h3", {}, label), rows) };
  });
  list.append(...sections.map((section) => section.box), none);
  paintPanel = () => {
    const weights = new Set(); // rows that differ only in their bits share one download
    const words = find.value.toLowerCase().split(/\s+/), lines = Object.fromEntries(Object.keys(GROUPS).map((group) => [group, []]));
    for (const one of known()) {
      if (!words.every((word) => `${one.title} ${one.description}`.toLowerCase().includes(word))) continue;
      if (!rows.has(one.title)) rows.set(one.title, new Row());
      const what = [one.model_name, one.size_gb, one.config.base_arch, one.capabilities.control].join();
      const row = rows.get(one.title), whole = !weights.has(what), group = row.paint(one, whole);
      if (!whole && ["hub", "downloading", "closed"].includes(group)) continue;
      weights.add(what);
      lines[group].push(row.li);
    }
    for (const { group, rows: into, box } of sections) {
      if (lines[group].length !== into.children.length || lines[group].some((li, at) => into.children[at] !== li)) into.replaceChildren(...lines[group]);
      box.hidden = lines[group].length === 0;
    }
    standard.textContent = system?.default_model ? `Default: ${system.default_model.name}. ${system.default_model.sentence}` : "";
    none.hidden = sections.some((section) => !section.box.hidden);
    const memory = system?.system_memory_gb, used = system?.mlx_memory_gb;
    machine.box.hidden = !memory?.used;
    engine.box.hidden = !memory || used === null || used === undefined;
    if (memory?.used) machine.set(memory.used, memory.total);
    if (!engine.box.hidden) engine.set(used, memory.total);
  };
  paintPanel();
  dialog("Models", { wide: true, onclose: () => { paintPanel = () => {}; } }, h("div", { class: "column gap" },
    h("div", { class: "meters" }, machine.box, engine.box), standard, find, list));
}

export function begin() {
  $("open-models").addEventListener("click", show);
  document.addEventListener("models", () => paintPanel());
  feed.addEventListener("link", () => { paint(); if (linkNow() === "live") void look(); });
  feed.addEventListener("job", ({ detail: { job, ended } }) => {
    if (ended && job.type === "download") void reload().catch(() => {});
    else if (ended) void look();
    else if (job.progress_detail?.download) paintPanel();
  });
}
