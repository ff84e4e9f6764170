// Gallery: the finished images, newest first, with search, filters and comparison.

import { get, picture, small } from "./api.js";
import { $, h, toast } from "./dom.js";
import { feed } from "./feed.js";
import { allImages, setImages, shownImages, words } from "./images.js";
import { showPicture, comparePictures } from "./view.js";
import { PROTOCOLS } from "./watch.js";

const PAGE = 48;
const FRESH = 12;

let cursor = null;
let round = 0;
const tiles = new Map(); // by image id
const picked = new Set();

const query = (more = {}) => {
  const filters = { limit: PAGE, search: $("search").value.trim(), model: $("by-model").value, protocol: $("by-protocol").value, ...more };
  return new URLSearchParams(Object.entries(filters).filter(([, value]) => value !== "" && value !== null)).toString();
};

/** Load the first page. */
export async function reload() {
  const mine = ++round;
  try {
    const page = await get(`/images?${query()}`);
    if (mine !== round) return;
    cursor = page.next_cursor;
    setImages(page.images);
  } catch (error) {
    if (error.status) toast(error.message, { kind: "bad" });
  }
}

const unknown = (page) => page.filter((image) => !allImages().some((other) => other.id === image.id));

async function more() {
  const mine = round;
  const page = await get(`/images?${query({ cursor })}`);
  if (mine !== round) return;
  cursor = page.next_cursor;
  setImages([...allImages(), ...unknown(page.images)]);
}

let soon = 0;
/** Load new images and put them first; one request for several events. */
function freshen() {
  clearTimeout(soon);
  soon = setTimeout(async () => {
    const mine = round;
    try {
      const page = await get(`/images?${query({ limit: FRESH })}`);
      if (mine !== round) return;
      const fresh = unknown(page.images);
      if (fresh.length === FRESH) return reload();  // there may be more of them
      setImages([...fresh, ...allImages()]);
    } catch { /* the banner shows it */ }
  }, 60);
}

function tileOf(image) {
  let tile = tiles.get(image.id);
  if (tile) return tile;
  const img = h("img", { alt: "", loading: "lazy", decoding: "async" });
  picture(small(image.url), img).catch(() => {});
  img.addEventListener("load", () => tile.classList.add("there"), { once: true });
  const box = h("input", { type: "checkbox", "aria-label": `Pick for comparing: ${words(image)}`, onchange: () => pick(image.id, box.checked) });
  tile = h("li", { class: "tile", dataset: { id: image.id } },
    h("button", { type: "button", class: "open", "aria-label": `Open: ${words(image)}`, onclick: () => showPicture(image) }, img,
      h("span", { class: "caption", "aria-hidden": "true" }, words(image))),
    h("label", { class: "pick" }, box));
  tiles.set(image.id, tile);
  return tile;
}

function paint() {
  const shown = shownImages(), images = allImages();
  for (const { id } of images) if (picked.has(id) && !shown.some((image) => image.id === id)) pick(id, false);
  const list = $("gallery"), focused = document.activeElement;
  list.replaceChildren(...shown.map(tileOf));
  if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
  for (const id of tiles.keys()) if (!images.some((image) => image.id === id)) tiles.delete(id);
  $("more").hidden = cursor === null;
  const isFiltered = $("search").value || $("by-model").value || $("by-protocol").value;
  $("gallery-note").textContent = shown.length || !isFiltered ? "" : "No matches.";
}

function pick(id, is) {
  if (is) picked.add(id); else picked.delete(id);
  while (picked.size > 2) {
    const [first] = picked;
    picked.delete(first);
    const box = tiles.get(first)?.querySelector("input");
    if (box) box.checked = false;
  }
  $("compare").disabled = picked.size !== 2;
  $("compare").querySelector("span").textContent = picked.size === 1 ? "Pick one more" : "Compare";
}

export function begin() {
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(reload, 180); });
  for (const id of ["by-model", "by-protocol"]) $(id).addEventListener("change", reload);
  $("more").addEventListener("click", () => more().catch((error) => toast(error.message, { kind: "bad" })));
  $("compare").addEventListener("click", () => {
    const two = [...picked].map((id) => allImages().find((image) => image.id === id)).filter(Boolean);
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
  document.addEventListener("pictures", paint);
}
