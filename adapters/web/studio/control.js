// Control image: outlines or a depth map that the generated image follows, for models that support it.

import { $, h, textButton, toast } from "./dom.js";
import { chooser, renewed, stored, take, thumb } from "./slots.js";

const KINDS = {
  canny: ["Outlines to follow", "Add a picture with outlines", "Its outlines are followed."],
  depth: ["Depth to follow", "Add a depth map", "In a depth map, near things are light."],
};

let image = null; // {id, blob, width, height}
let kind = null;

function show() {
  $("control").hidden = kind === null;
  if (kind === null) return;
  const [legend, label, note] = KINDS[kind];
  $("control-legend").textContent = legend;
  $("strength-field").hidden = image === null;
  $("edges-field").hidden = image === null || kind !== "canny";
  $("strength-value").textContent = `${Math.round(Number($("strength").value) * 100)} %`;
  $("control-slot").replaceChildren(image === null ? chooser(label, (file) => control.begin(file)) :
    h("div", { class: "chosen" }, h("div", { class: "thumb" }, thumb(image.blob, legend)),
      h("div", { class: "column" }, h("small", { class: "muted" }, `${image.width} × ${image.height}`), h("p", { class: "note" }, note),
        textButton("bin", "Remove", () => { image = null; show(); }, { "aria-label": `Remove: ${legend}` }))));
}

export const control = {
  offer(capabilities) {
    kind = capabilities.control;
    show();
  },

  async begin(blob) {
    image = (await take(blob)) ?? image;
    show();
  },

  canFollowOutlines: () => kind === "canny",

  /** The control field of a request. */
  async fields() {
    if (kind === null || image === null) return {};
    image = await renewed(image);
    return { control: { type: kind, image: image.id, strength: Number($("strength").value), ...(kind === "canny" ? { edges: $("edges").checked } : {}) } };
  },

  async restore(drawing) {
    const former = drawing.control;
    image = former ? await stored(former.image) : null;
    if (former && !image) toast("The picture that it followed is no longer stored.");
    $("strength").value = former?.strength ?? 1;
    $("edges").checked = former?.edges ?? false;
    show();
  },
};

$("strength").addEventListener("input", () => { $("strength-value").textContent = `${Math.round(Number($("strength").value) * 100)} %`; });
