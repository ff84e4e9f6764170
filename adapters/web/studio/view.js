// Dialogs: one image with all its settings, two side by side, and a dropped file.

import { download, fetched, picture } from "./api.js";
import { control } from "./control.js";
import { adjusted, clock, dialog, h, iconButton, textButton, toast } from "./dom.js";
import { enlarge, enlarges } from "./enlarge.js";
import { remove, shownImages, words } from "./images.js";
import { inputs } from "./inputs.js";
import { useSettings } from "./make.js";
import { PROTOCOLS } from "./watch.js";

const madeAt = (date) => (date.toDateString() === new Date().toDateString() ? `Today, ${clock(date)}`
  : date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));

/** All settings of an image, as [name, value]. */
export function factsOf(image) {
  const drawn = image.drawing ?? {}, larger = drawn.enlarged, sampled = drawn.sampling;
  const size = (width, height) => (width === undefined || height === undefined ? null : `${width} × ${height}`);
  return [
    ["Drawn by", drawn.program], ["Model", drawn.model ?? image.model], ["Size", size(larger?.width ?? image.width, larger?.height ?? image.height)],
    ["Enlarged", larger ? `${drawn.width ? `from ${size(drawn.width, drawn.height)} ` : ""}by ${larger.model}` : null],
    ["Steps", drawn.steps], [sampled ? "CFG scale" : "Guidance", drawn.guidance],
    ["Sampler", sampled?.sampler ?? [drawn.sampler, drawn.scheduler].filter(Boolean).join(", ")], ["Schedule", sampled?.schedule],
    ["Clip skip", sampled?.clip_skip], ["VAE", sampled?.vae === "None" ? null : sampled?.vae],
    ["Seed", drawn.seed ?? image.seed], ["Denoise", drawn.image_strength === undefined ? null : `${Math.round(drawn.image_strength * 100)} %`],
    ["Mask", drawn.mask ? "yes" : null], ["References", drawn.reference_images?.length ?? null],
    ["Follows", drawn.control ? { canny: "outlines", depth: "depth" }[drawn.control.type] : null],
    ["LoRAs", drawn.loras?.map((one) => `${one.name} ${one.scale}`).join(", ")],
    ["Took", image.seconds === undefined ? null : `${image.seconds.toFixed(1)} s`],
    ["By", PROTOCOLS[image.protocol] ?? image.protocol],
    ["Made", image.created_at ? madeAt(new Date(image.created_at)) : null],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
}

export const factList = (facts, differs = () => false) => h("dl", { class: "facts-list" },
  facts.map(([name, value]) => h("div", { class: differs(name, value) ? "differs" : "" }, h("dt", {}, name), h("dd", {}, String(value)))));

function prompt(drawing) {
  return [h("p", { class: "quote" }, drawing?.prompt ?? ""),
    drawing?.negative_prompt ? h("p", { class: "muted" }, `Negative: ${drawing.negative_prompt}`) : null];
}

/** Buttons for an image; `close` is called before each action. */
export function actions(image, close = () => {}) {
  const start = (work) => async () => {
    close();
    try { await work(await fetched(image.url)); } catch (error) { toast(error.message, { kind: "bad" }); }
    document.body.dataset.view = "make";
    document.dispatchEvent(new Event("view"));
  };
  const format = h("select", { "aria-label": "Format of the download" },
    [["png", "PNG"], ["jpeg", "JPEG"], ["webp", "WebP"]].map(([value, text]) => h("option", { value }, text)));
  return h("div", { class: "actions" },
    image.drawing && textButton("reuse", "Use these settings", () => { close(); void useSettings(image.drawing); }),
    inputs.canBegin() && textButton("picture", "Use as input", start((blob) => inputs.begin(blob))),
    inputs.canFollow() && textButton("layers", "Use as reference", start((blob) => inputs.follow(blob))),
    control.canFollowOutlines() && textButton("pen", "Follow its outlines", start((blob) => control.begin(blob))),
    enlarges() && textButton("scale", "Enlarge", () => { close(); enlarge(image); }),
    h("span", { class: "joined row" }, format,
      iconButton("save", "Download", () => download(image, format.value).catch((error) => toast(error.message, { kind: "bad" }))),
      iconButton("bin", "Delete", () => { close(); remove(image); }, { class: "plain square danger" })));
}

export function showPicture(image) {
  const img = h("img", { alt: words(image) });
  const side = h("div", { class: "side" });
  const box = dialog("Picture", { wide: true }, h("div", { class: "look" }, h("div", { class: "frame" }, img,
    iconButton("left", "The picture before", () => go(-1), { class: "plain square before" }),
    iconButton("right", "The picture after", () => go(1), { class: "plain square after" })), side));
  let now = image;
  function paint() {
    picture(now.url, img).catch(() => {});
    img.alt = words(now);
    side.replaceChildren(...prompt(now.drawing).filter(Boolean),
      ...(now.adjustments ?? []).map((a) => h("p", { class: "muted adjusted" }, adjusted(a))), factList(factsOf(now)), actions(now, () => box.close()));
  }
  function go(by) {
    const all = shownImages();
    const next = all[all.findIndex((one) => one.id === now.id) + by];
    if (next) { now = next; paint(); }
  }
  box.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLSelectElement) return;
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
    if (event.key === "Delete") { box.close(); remove(now); }
  });
  paint();
}

export function comparePictures(two) {
  const facts = two.map((image) => new Map(factsOf(image)));
  const columns = two.map((image, at) => {
    const img = h("img", { alt: words(image) });
    picture(image.url, img).catch(() => {});
    const other = facts[1 - at];
    return h("figure", { class: "column" }, h("div", { class: "frame" }, img),
      h("figcaption", {}, ...prompt(image.drawing).filter(Boolean),
        factList(factsOf(image), (name, value) => other.get(name) !== value && !["Made", "Took", "By"].includes(name)),
        image.drawing && textButton("reuse", "Use these settings", () => { box.close(); void useSettings(image.drawing); })));
  });
  const box = dialog("Side by side", { wide: true }, h("div", { class: "compare" }, columns));
}

/** Show a dropped file: its settings, and what it can be used for. */
export function showDropped(blob, drawing) {
  const img = h("img", { alt: "The picture that was dropped" });
  const url = URL.createObjectURL(blob);
  img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  img.src = url;
  const facts = drawing ? factsOf({ ...drawing, drawing, protocol: null }) : [];
  const box = dialog("Dropped picture", { wide: true }, h("div", { class: "look" }, h("div", { class: "frame" }, img),
    h("div", { class: "side" }, ...(drawing ? [...prompt(drawing), factList(facts)] : [h("p", {}, "The file contains no settings.")]).filter(Boolean),
      h("div", { class: "actions" },
        drawing && textButton("reuse", "Use these settings", () => { box.close(); void useSettings(drawing); }, { id: "use-dropped" }),
        inputs.canBegin() && textButton("picture", "Use as input", () => { box.close(); void inputs.begin(blob); }),
        inputs.canFollow() && textButton("layers", "Use as reference", () => { box.close(); void inputs.follow(blob); })))));
}
