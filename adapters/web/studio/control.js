// A picture that the drawn one follows, by its outlines or as a depth map, for models that have learnt to.

import { $, h, textButton, toast } from "./dom.js";
import { chooser, kept, renewed, take, thumb } from "./slots.js";

const KINDS = {
  canny: ["Outlines to follow", "Add a picture with outlines", "Its outlines are followed."],
  depth: ["Depth to follow", "Add a depth map", "A depth map: what is near is light."],
};

let led = null; // {id, blob, width, height}
let kind = null;

function show() {
  $("control").hidden = kind === null;
  if (kind === null) return;
  const [legend, says, note] = KINDS[kind];
  $("control-legend").textContent = legend;
  $("strength-field").hidden = led === null;
  $("edges-field").hidden = led === null || kind !== "canny";
  $("strength-value").textContent = `${Math.round(Number($("strength").value) * 100)} %`;
  $("control-slot").replaceChildren(led === null ? chooser(says, (file) => control.begin(file)) :
    h("div", { class: "chosen" }, h("div", { class: "thumb" }, thumb(led.blob, legend)),
      h("div", { class: "column" }, h("small", { class: "muted" }, `${led.width} × ${led.height}`), h("p", { class: "note" }, note),
        textButton("bin", "Remove", () => { led = null; show(); }, { "aria-label": `Remove: ${legend}` }))));
}

export const control = {
  offer(capabilities) {
    kind = capabilities.control;
    show();
  },

  async begin(blob) {
    led = (await take(blob)) ?? led;
    show();
  },

  canFollowOutlines: () => kind === "canny",

  /** Its field of a request. */
  async said() {
    if (kind === null || led === null) return {};
    led = await renewed(led);
    return { control: { type: kind, image: led.id, strength: Number($("strength").value), ...(kind === "canny" ? { edges: $("edges").checked } : {}) } };
  },

  async restore(drawing) {
    const said = drawing.control;
    led = said ? await kept(said.image) : null;
    if (said && !led) toast("The picture that it followed is no longer kept.");
    $("strength").value = said?.strength ?? 1;
    $("edges").checked = said?.edges ?? false;
    show();
  },
};

$("strength").addEventListener("input", () => { $("strength-value").textContent = `${Math.round(Number($("strength").value) * 100)} %`; });
