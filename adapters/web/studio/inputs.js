// Input images: an initial image with a mask, and reference images. They are uploads, whose ids the form sends.

import { upload } from "./api.js";
import { $, h, iconButton, textButton, toast } from "./dom.js";
import { paintMask } from "./mask.js";
import { chooser, renewed, stored, take, thumb } from "./slots.js";

let first = null; // {id, blob, width, height, mask: {id, blob} | null}
let references = [];
let its = { init_image: false, mask: false, max_references: 0 };

function show() {
  $("input").hidden = !its.init_image;
  $("references").hidden = its.max_references === 0;
  $("denoise-field").hidden = first === null;
  $("denoise-value").textContent = `${Math.round(Number($("denoise").value) * 100)} %`;
  $("input-slot").replaceChildren(first === null ? chooser("Add an input picture", (file) => inputs.begin(file)) :
    h("div", { class: "chosen" }, h("div", { class: "thumb" }, thumb(first.blob, "The input picture"),
      first.mask && its.mask ? maskThumb() : null),
    h("div", { class: "column" }, h("small", { class: "muted" }, `${first.width} × ${first.height}`),
      its.mask && textButton("brush", first.mask ? "Change the mask" : "Paint a mask", mask, { id: "mask" }),
      first.mask && textButton("close", "Repaint everything", () => { first.mask = null; show(); }),
      textButton("bin", "Remove", () => { first = null; show(); }))));
  const rows = references.slice(0, its.max_references).map((one, at) =>
    h("div", { class: "thumb" }, thumb(one.blob, `Reference picture ${at + 1}`),
      iconButton("close", `Remove reference ${at + 1}`, () => { references = references.filter((other) => other !== one); show(); })));
  if (references.length < its.max_references) rows.push(chooser("Add a reference picture", (file) => inputs.follow(file), its.max_references > 1));
  $("reference-slots").replaceChildren(...rows);
}

function maskThumb() {
  const image = thumb(first.mask.blob, "The mask");
  image.className = "mask";
  return image;
}

async function mask() {
  const target = first, blob = await paintMask(first.blob, first.mask?.blob ?? null);
  if (!blob) return;
  try {
    target.mask = { ...(await upload(blob)), blob };
  } catch (error) {
    toast(error.message, { kind: "bad" });
  }
  show();
  $("mask")?.focus();
}

export const inputs = {
  offer(capabilities) {
    its = capabilities;
    show();
  },

  async begin(blob) {
    const image = await take(blob);
    if (image) first = { ...image, mask: null };
    show();
  },

  async follow(blob) {
    if (references.length >= its.max_references) references = references.slice(0, its.max_references - 1);
    const image = await take(blob);
    if (image) references.push(image);
    show();
  },

  canBegin: () => its.init_image,
  canFollow: () => its.max_references > 0,

  /** The image fields of a request. */
  async fields() {
    if (first) first = { ...(await renewed(first)), mask: first.mask && await renewed(first.mask) };
    references = await Promise.all(references.map(renewed));
    const rows = references.slice(0, its.max_references);
    return {
      ...(first && its.init_image ? { init_images: [first.id], image_strength: Number($("denoise").value) } : {}),
      ...(first?.mask && its.init_image && its.mask ? { mask: first.mask.id } : {}),
      ...(rows.length ? { reference_images: rows.map((one) => one.id) } : {}),
    };
  },

  /** Restore the inputs of an image, as long as the gateway has them. */
  async restore(drawing) {
    first = null;
    if (drawing.init_image) {
      const image = await stored(drawing.init_image);
      if (image) first = { ...image, mask: drawing.mask ? await stored(drawing.mask) : null };
      $("denoise").value = drawing.image_strength ?? 0.75;
    }
    references = (await Promise.all((drawing.reference_images ?? []).map(stored))).filter(Boolean);
    if ((drawing.init_image && !first) || references.length < (drawing.reference_images ?? []).length)
      toast("Its input pictures are no longer stored.");
    show();
  },
};

$("denoise").addEventListener("input", () => {
  $("denoise-value").textContent = `${Math.round(Number($("denoise").value) * 100)} %`;
});
