// The models: which are here, which is in memory, what they take; and the state of the engine in the header.

import { get, post } from "./api.js";
import { $, dialog, h, textButton, toast } from "./dom.js";
import { feed, linkNow } from "./feed.js";
import { known, loadModels } from "./make.js";

export const enlarges = () => false;
export const enlarge = async () => {};

let system = null;
let refill = () => {};

export async function look() {
  try { system = await get("/system"); } catch { /* the link says it */ }
  paint();
  refill();
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

function meter(label, used, total) {
  const bar = h("div", { class: "progress", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": total, "aria-valuenow": used }, h("i", {}));
  bar.firstChild.style.transform = `scaleX(${Math.min(1, used / total).toFixed(3)})`;
  return h("div", { class: "field" }, h("div", { class: "row" }, h("span", {}, label), h("span", { class: "grow" }),
    h("span", { class: "muted" }, `${used.toFixed(1)} of ${total.toFixed(1)} GB`)), bar);
}

async function act(work, said) {
  try { await work(); toast(said); } catch (error) { toast(error.message, { kind: "bad" }); }
}

const path = (one) => `/models/${one.title.split("/").map(encodeURIComponent).join("/")}`;

function rowOf(one) {
  const loaded = system?.active_model === one.title;
  const state = one.unavailable ? "Not available" : loaded ? "In memory" : one.downloaded ? "On disk" : "Not here";
  return h("li", { class: "model", dataset: { state } },
    h("div", { class: "column" }, h("p", { class: "title" }, one.title), h("p", { class: "muted" }, one.unavailable ?? one.description),
      h("p", { class: "facts" }, h("span", { class: "badge" }, state), h("span", {}, `${one.size_gb} GB`), h("span", {}, one.licence))),
    one.unavailable || !one.downloaded ? null : loaded
      ? textButton("close", "Unload", () => act(() => post(`${path(one)}/unload`).then(look), `${one.title} gives its memory back.`), { "aria-label": `Unload ${one.title}` })
      : textButton("play", "Load", () => act(() => post(`${path(one)}/load`), `${one.title} is loaded when its turn comes.`), { "aria-label": `Load ${one.title}` }));
}

async function show() {
  await Promise.all([look(), loadModels()]).catch(() => {});
  const list = h("ul", { class: "models" });
  const find = h("input", { type: "search", placeholder: "Search models", "aria-label": "Search models", oninput: () => fill() });
  const fill = () => {
    const words = find.value.toLowerCase().split(/\s+/);
    const rank = (one) => (system?.active_model === one.title ? 0 : one.downloaded && !one.unavailable ? 1 : one.unavailable ? 3 : 2);
    list.replaceChildren(...known().filter((one) => words.every((word) => `${one.title} ${one.description}`.toLowerCase().includes(word)))
      .sort((a, b) => rank(a) - rank(b)).map(rowOf));
  };
  fill();
  refill = fill;
  const memory = system?.system_memory_gb;
  dialog("Models", { wide: true, onclose: () => { refill = () => {}; } }, h("div", { class: "column gap" },
    memory?.used ? meter("Memory of this machine", memory.used, memory.total) : null, find, list));
}

export function begin() {
  $("open-models").addEventListener("click", show);
  feed.addEventListener("link", () => { paint(); if (linkNow() === "live") void look(); });
  feed.addEventListener("job", ({ detail }) => { if (detail.ended) void look(); });
}
