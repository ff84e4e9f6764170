// Image slots of the form: drop zones, thumbnails, and uploads to the gateway.

import { BASE, fetched, upload } from "./api.js";
import { h, toast } from "./dom.js";

const RENEW_MS = 60_000; // an upload that expires within this time is sent again
const TYPES = ["image/png", "image/jpeg", "image/webp"];

/** Upload an image; returns {id, blob, width, height}, or null if it was refused. */
export async function take(blob) {
  if (!TYPES.includes(blob.type)) { toast("Only PNG, JPEG and WebP files can be used.", { kind: "bad" }); return null; }
  try {
    return { ...(await upload(blob)), blob };
  } catch (error) {
    toast(error.message, { kind: "bad" });
    return null;
  }
}

/** The same image, uploaded again if its upload is about to expire. */
export async function renewed(one) {
  if (!one.expires_at || Date.parse(one.expires_at) - Date.now() > RENEW_MS) return one;
  return { ...one, ...(await upload(one.blob)) };
}

/** A drop zone with a file button. */
export function chooser(label, onfile, many = false) {
  const file = h("input", { type: "file", accept: TYPES.join(","), multiple: many, hidden: true,
    onchange: () => { for (const one of file.files) onfile(one); file.value = ""; } });
  const button = h("button", { type: "button", class: "chooser", onclick: () => file.click() },
    h("span", {}, label), h("small", {}, "Drop, paste or choose"));
  const zone = h("div", { class: "zone" }, button, file);
  zone.addEventListener("dragover", (event) => { event.preventDefault(); event.stopPropagation(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (!files.length) return;
    event.stopPropagation();
    document.dispatchEvent(new Event("dropped"));
    for (const one of many ? files : files.slice(0, 1)) onfile(one);
  });
  return zone;
}

/** An <img> of a file; `alt` describes it. */
export function thumb(blob, alt) {
  const image = h("img", { alt });
  const url = URL.createObjectURL(blob);
  image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  image.src = url;
  return image;
}

/** An upload by its id; null if the gateway no longer has it. */
export async function stored(id) {
  try {
    const blob = await fetched(`${BASE}/uploads/${id}`), { width, height } = await createImageBitmap(blob);
    return { id, blob, width, height };
  } catch { return null; }
}
