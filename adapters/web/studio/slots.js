// What the form's pictures share: a place to drop one, its small view, and the gateway that keeps it.

import { BASE, fetched, upload } from "./api.js";
import { h, toast } from "./dom.js";

const AGES_MS = 60_000; // before its hour is over, a picture is sent again
const TYPES = ["image/png", "image/jpeg", "image/webp"];

/** {id, blob, width, height} of a picture that the gateway keeps now; null where it did not take it. */
export async function take(blob) {
  if (!TYPES.includes(blob.type)) { toast("PNG, JPEG or WebP, please.", { kind: "bad" }); return null; }
  try {
    return { ...(await upload(blob)), blob };
  } catch (error) {
    toast(error.message, { kind: "bad" });
    return null;
  }
}

/** The same picture, sent again where the gateway is about to forget it. */
export async function renewed(one) {
  if (!one.expires_at || Date.parse(one.expires_at) - Date.now() > AGES_MS) return one;
  return { ...one, ...(await upload(one.blob)) };
}

/** A drop zone that is a file button, too. */
export function chooser(says, chosen, many = false) {
  const file = h("input", { type: "file", accept: TYPES.join(","), multiple: many, hidden: true,
    onchange: () => { for (const one of file.files) chosen(one); file.value = ""; } });
  const button = h("button", { type: "button", class: "chooser", onclick: () => file.click() },
    h("span", {}, says), h("small", {}, "Drop, paste or choose"));
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
    for (const one of many ? files : files.slice(0, 1)) chosen(one);
  });
  return zone;
}

/** A picture of a file; `alt` says what it is. */
export function thumb(blob, alt) {
  const image = h("img", { alt });
  const url = URL.createObjectURL(blob);
  image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  image.src = url;
  return image;
}

/** An upload that a drawing names, as long as the gateway keeps it; else null. */
export async function kept(id) {
  try {
    const blob = await fetched(`${BASE}/uploads/${id}`), { width, height } = await createImageBitmap(blob);
    return { id, blob, width, height };
  } catch { return null; }
}
