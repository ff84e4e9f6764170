// What came of it: the pictures, newest first; found, looked at, compared, removed.

import { call, get, picture, small } from "./api.js";
import { $, h, toast } from "./dom.js";
import { feed } from "./feed.js";
import { showPicture, comparePictures } from "./view.js";
import { PROTOCOLS } from "./watch.js";

const PAGE = 48;
const FRESH = 12;
const UNDO_S = 7;

let images = [];
let cursor = null;
let round = 0;
const tiles = new Map();
const removed = new Map(); // id to what undoes it
const picked = new Set();
const others = new BroadcastChannel("studio-pictures");

export const shownImages = () => images.filter((image) => !removed.has(image.id));
export const words = (image) => image.drawing?.prompt ?? "An enlarged picture";

const query = (more = {}) => {
  const asked = { limit: PAGE, search: $("search").value.trim(), model: $("by-model").value, protocol: $("by-protocol").value, ...more };
  return new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== "" && value !== null)).toString();
};

/** Begin the list anew. */
export async function reload() {
  const mine = ++round;
  try {
    const page = await get(`/images?${query()}`);
    if (mine !== round) return;
    images = page.images;
    cursor = page.next_cursor;
    paint();
  } catch (error) {
    if (error.status) toast(error.message, { kind: "bad" });
  }
}

async function more() {
  const mine = round;
  const page = await get(`/images?${query({ cursor })}`);
  if (mine !== round) return;
  images = [...images, ...page.images.filter((image) => !images.some((other) => other.id === image.id))];
  cursor = page.next_cursor;
  paint();
}

let soon = 0;
/** What is new comes in front; several at once ask once. */
function freshen() {
  clearTimeout(soon);
  soon = setTimeout(async () => {
    const mine = round;
    try {
      const page = await get(`/images?${query({ limit: FRESH })}`);
      if (mine !== round) return;
      const fresh = page.images.filter((image) => !images.some((other) => other.id === image.id));
      if (fresh.length === FRESH) return reload();  // there may be more of them
      images = [...fresh, ...images];
      paint();
    } catch { /* the link says it */ }
  }, 60);
}

function tileOf(image) {
  let tile = tiles.get(image.id);
  if (tile) return tile;
  const img = h("img", { alt: "", loading: "lazy", decoding: "async" });
  picture(small(image.url), img).catch(() => {});
  img.addEventListener("load", () => tile.classList.add("there"), { once: true });
  const box = h("input", { type: "checkbox", "aria-label": `Pick for comparing: ${words(image)}`, onchange: () => pick(image, box.checked) });
  tile = h("li", { class: "tile", dataset: { id: image.id } },
    h("button", { type: "button", class: "open", "aria-label": `Open: ${words(image)}`, onclick: () => showPicture(image) }, img,
      h("span", { class: "caption", "aria-hidden": "true" }, words(image))),
    h("label", { class: "pick" }, box));
  tiles.set(image.id, tile);
  return tile;
}

function paint() {
  const shown = shownImages();
  const list = $("gallery"), focused = document.activeElement;
  list.replaceChildren(...shown.map(tileOf));
  if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
  for (const id of tiles.keys()) if (!images.some((image) => image.id === id)) tiles.delete(id);
  $("more").hidden = cursor === null;
  const asked = $("search").value || $("by-model").value || $("by-protocol").value;
  $("gallery-note").textContent = shown.length ? "" : asked ? "No picture is like that." : "";
  document.dispatchEvent(new Event("pictures"));
}

function pick(image, is) {
  if (is) picked.add(image.id); else picked.delete(image.id);
  while (picked.size > 2) {
    const [first] = picked;
    picked.delete(first);
    const box = tiles.get(first)?.querySelector("input");
    if (box) box.checked = false;
  }
  $("compare").disabled = picked.size !== 2;
  $("compare").querySelector("span").textContent = picked.size === 1 ? "Pick one more" : "Compare";
}

// ---- removing ------------------------------------------------------------------------------------

/** Take a picture out of sight at once, and off the disk when nobody undoes it. */
export function remove(image) {
  const undo = () => { removed.delete(image.id); paint(); };
  removed.set(image.id, undo);
  if (picked.has(image.id)) pick(image, false);
  paint();
  toast("The picture is removed.", { action: ["Undo", undo], seconds: UNDO_S, onend: () => forget(image.id) });
}

async function forget(id, options = {}) {
  if (!removed.has(id)) return;
  try {
    await call("DELETE", `/images/${id}`, undefined, options);
  } catch (error) {
    if (error.status !== 404) { toast(error.message, { kind: "bad" }); removed.get(id)?.(); return; }
  }
  gone(id);
  others.postMessage({ gone: id });
}

function gone(id) {
  images = images.filter((image) => image.id !== id);
  removed.delete(id);
  paint();
}

export function begin() {
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(reload, 180); });
  for (const id of ["by-model", "by-protocol"]) $(id).addEventListener("change", reload);
  $("more").addEventListener("click", () => more().catch((error) => toast(error.message, { kind: "bad" })));
  $("compare").addEventListener("click", () => {
    const two = [...picked].map((id) => images.find((image) => image.id === id)).filter(Boolean);
    if (two.length === 2) comparePictures(two);
  });
  $("by-protocol").append(...Object.entries(PROTOCOLS).map(([value, text]) => h("option", { value }, text)));
  document.addEventListener("models", ({ detail }) => {
    const chosen = $("by-model").value;
    $("by-model").replaceChildren(h("option", { value: "" }, "Any model"),
      ...detail.filter((one) => one.downloaded && !one.alias_of).map((one) => h("option", { value: one.title }, one.title)));
    $("by-model").value = chosen;
  });
  feed.addEventListener("job", ({ detail: { job, ended } }) => { if (job.newest || (ended && job.status === "completed")) freshen(); });
  feed.addEventListener("link", ({ detail: { link, before } }) => { if (link === "live" && before !== "live") void reload(); });
  others.onmessage = ({ data }) => gone(data.gone);
  addEventListener("pagehide", () => { for (const id of removed.keys()) void forget(id, { keepalive: true }); });
}
