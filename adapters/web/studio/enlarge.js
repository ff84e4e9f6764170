// Upscaling of a finished image, as a job of its own.

import { post } from "./api.js";
import { dialog, h, toast } from "./dom.js";
import { known } from "./make.js";

const SCALES = [2, 3, 4];

const upscalers = () => known().filter((one) => one.capabilities.task === "upscale" && !one.unavailable && !one.alias_of)
  .sort((a, b) => Number(b.downloaded) - Number(a.downloaded));

export const enlarges = () => upscalers().length > 0;

/** Show a form for the size, then submit the job. */
export function enlarge(image) {
  const models = upscalers();
  const model = h("select", { id: "enlarge-model" }, models.map((one) => h("option", { value: one.title }, one.title)));
  const note = h("p", { class: "note" });
  const showNote = () => {
    const one = models.find((other) => other.title === model.value);
    note.textContent = one.downloaded ? one.description : `Not on this machine yet: ${one.size_gb} GB are downloaded first.`;
  };
  model.addEventListener("change", showNote);
  showNote();
  const scale = h("select", { id: "enlarge-scale" }, SCALES.map((by) =>
    h("option", { value: by }, `${by} times: ${image.width * by} × ${image.height * by}`)));
  const percent = h("output", { for: "softness" }, "0 %");
  const softness = h("input", { id: "softness", type: "range", min: 0, max: 1, step: 0.05, value: 0,
    oninput: () => { percent.textContent = `${Math.round(Number(softness.value) * 100)} %`; } });
  const refusal = h("p", { class: "refusal", role: "alert" });
  const send = h("button", { class: "draw", type: "submit" }, "Enlarge");
  const attempt = h("button", { class: "plain", type: "button", hidden: true, onclick: () => order("try") }, "Try anyway");
  const order = async (memory) => {
    send.disabled = attempt.hidden = true;
    refusal.textContent = "";
    try {
      await post("/upscale", { image: image.id, model: model.value, scale: Number(scale.value), softness: Number(softness.value), memory });
      box.close();
      toast("The picture is being enlarged.");
    } catch (error) {
      refusal.textContent = error.status ? error.message : "The gateway does not answer.";
      attempt.hidden = !error.short;
    }
    send.disabled = false;
  };
  const form = h("form", { class: "ask", onsubmit: (event) => { event.preventDefault(); void order("check"); } },
  h("div", { class: "field" }, h("label", { for: "enlarge-scale" }, "Size"), scale),
  h("div", { class: "field" }, h("label", { for: "enlarge-model" }, "Model"), model, note),
  h("div", { class: "field" }, h("div", { class: "row" }, h("label", { for: "softness" }, "Softness"), h("span", { class: "grow" }), percent), softness,
    h("p", { class: "note" }, "0 keeps what is in the picture; more gives the model more freedom.")),
  refusal, attempt, send);
  const box = dialog("Enlarge the picture", {}, form);
  scale.focus();
}
