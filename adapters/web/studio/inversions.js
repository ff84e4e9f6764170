// Textual inversions that fit the chosen model: their names are words of the prompts.

import { $, h } from "./dom.js";

function add(id) {
  const field = $(id), name = $("inversion").value, text = field.value.trimEnd();
  field.value = text ? `${text}${text.endsWith(",") ? "" : ","} ${name}` : name;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
}

export const inversions = {
  /** `embeddings`: all textual inversions of the gateway, as [{name, widths}]. */
  offer(capabilities, embeddings) {
    const widths = capabilities.text_widths.join(), chosen = $("inversion").value;
    const names = embeddings.filter((one) => widths && one.widths.join() === widths).map((one) => one.name);
    $("inversions").hidden = names.length === 0;
    $("inversion-negative").hidden = !capabilities.negative_prompt;
    $("inversion").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(chosen)) $("inversion").value = chosen;
  },
};

$("inversion-prompt").addEventListener("click", () => add("prompt"));
$("inversion-negative").addEventListener("click", () => add("negative"));
