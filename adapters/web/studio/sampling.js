// Sampling of Stable Diffusion: sampler, schedule and clip skip; what else an image had is kept to draw it again.

import { $, h } from "./dom.js";

let rest = {};
let offered = "";

const options = (names, first) => [h("option", { value: "" }, first), ...names.map((name) => h("option", { value: name }, name))];

export const sampling = {
  offer({ samplers, schedules }) {
    $("sampling").hidden = samplers.length === 0;
    const now = samplers.join() + schedules.join();
    if (now === offered) return;
    offered = now;
    $("sampler").replaceChildren(...options(samplers, "As usual"));
    $("schedule").replaceChildren(...options(schedules, "As usual"));
    $("clip-skip").value = "";
    rest = {};
  },

  /** The sampling field of a request. */
  fields() {
    if ($("sampling").hidden) return {};
    const chosen = { sampler: $("sampler").value, schedule: $("schedule").value, clip_skip: Number($("clip-skip").value) };
    const said = { ...rest, ...Object.fromEntries(Object.entries(chosen).filter(([, value]) => value)) };
    return Object.keys(said).length ? { sampling: said } : {};
  },

  restore(drawing) {
    const { sampler = "", schedule = "", clip_skip: clipSkip = "", ...others } = drawing.sampling ?? {};
    $("sampler").value = sampler;
    $("schedule").value = schedule;
    $("clip-skip").value = clipSkip;
    rest = others;
  },
};
