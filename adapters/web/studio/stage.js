// Stage: the large image in the middle, which is generated now, or is the newest, or a welcome.

import { call, picture } from "./api.js";
import { $, h, span, textButton, toast } from "./dom.js";
import { allJobs, feed } from "./feed.js";
import { shownImages, words } from "./images.js";
import { actions, factList, factsOf, showPicture } from "./view.js";
import { name, pace, PROTOCOLS, whereOf } from "./watch.js";

const IDEAS = ["a red circle on a blue background", "two green triangles on yellow", "a yellow star above a purple square", "a cat on a white background"];

let shown = ""; // what is on the stage: a job's id, a picture's id, or "welcome"
let parts = null;

const running = () => allJobs().find((job) => job.status === "generating" && job.width) ?? null;

function drawing(job) {
  if (shown !== job.job_id) {
    shown = job.job_id;
    const img = h("img", { alt: "", hidden: true, onload: () => { img.hidden = false; } });
    const frame = h("div", { class: "frame drawing" }, h("div", { class: "blank" }), img);
    frame.style.setProperty("--ratio", String(job.width / job.height));
    const bar = h("div", { class: "progress large", "aria-hidden": "true" }, h("i", {}));
    parts = { img, frame, bar, where: h("span", {}), eta: h("strong", {}), url: "" };
    $("stage").replaceChildren(frame, h("div", { class: "side" },
      h("p", { class: "over" }, h("i", { class: "pulse" }), job.type === "upscale" ? "Enlarging" : "Drawing"),
      h("p", { class: "quote" }, name(job)), bar,
      h("p", { class: "facts" }, parts.eta, h("span", { class: "grow" }), parts.where),
      factList([["Model", job.model], ["Size", `${job.width} × ${job.height}`], ["Seed", job.seeds?.length > 1 ? `${job.seeds[0]} and on` : job.seeds?.[0]], ["By", PROTOCOLS[job.protocol] ?? job.protocol]]),
      h("div", { class: "actions" }, textButton("close", "Cancel", () => call("DELETE", `/jobs/${job.job_id}`).catch((error) => toast(error.message, { kind: "bad" }))))));
  }
  parts.where.textContent = whereOf(job);
  const detail = job.progress_detail, url = job.preview;
  if (url && url !== parts.url) {
    parts.url = url;
    picture(url, parts.img).catch(() => {});
  }
  const step = detail?.steps ? detail.step / detail.steps : 0;
  parts.img.style.filter = `blur(${((1 - step) * 14).toFixed(1)}px) saturate(${(0.75 + step * 0.25).toFixed(2)})`;
  parts.img.style.scale = String(1 + (1 - step) * 0.12);
}

function finished(image) {
  if (shown === image.id) return;
  shown = image.id;
  parts = null;
  const img = h("img", { alt: words(image) });
  picture(image.url, img).catch(() => {});
  const frame = h("button", { type: "button", class: "frame", "aria-label": `Open: ${words(image)}`, onclick: () => showPicture(image) }, img);
  frame.style.setProperty("--ratio", String(image.width / image.height));
  $("stage").replaceChildren(frame, h("div", { class: "side" }, h("p", { class: "over" }, "Newest"),
    h("p", { class: "quote" }, words(image)), factList(factsOf(image)), actions(image)));
}

function welcome() {
  if (shown === "welcome") return;
  shown = "welcome";
  $("stage").replaceChildren(h("div", { class: "welcome" }, h("p", { class: "quote" }, "Describe what you would like to see."),
    h("p", { class: "muted" }, "Pictures of all clients appear here while they are generated. Some ideas:"),
    h("div", { class: "ideas" }, IDEAS.map((text) => textButton("", text, () => {
      $("prompt").value = text;
      $("prompt").dispatchEvent(new Event("input", { bubbles: true }));
      document.body.dataset.view = "make";
      document.dispatchEvent(new Event("view"));
      $("prompt").focus();
    })))));
}

function paint() {
  const job = running(), newest = shownImages()[0];
  $("stage").classList.toggle("live", Boolean(job));
  if (job) drawing(job);
  else if (newest) finished(newest);
  else welcome();
}

function tick() {
  const job = shown && parts && running();
  if (job && job.job_id === shown) {
    const its = pace(shown), at = performance.now() / 1000;
    if (its) {
      parts.bar.firstChild.style.transform = `scaleX(${its.shown.toFixed(4)})`;
      const left = its.remaining(job, at);
      const text = left === null ? "" : left < 1 ? "Any moment" : `Done in ${span(left)}`;
      if (parts.eta.textContent !== text) parts.eta.textContent = text;
    }
  }
  requestAnimationFrame(tick);
}

export function begin() {
  feed.addEventListener("state", paint);
  feed.addEventListener("job", paint);
  document.addEventListener("pictures", paint);
  document.addEventListener("models", () => { if (!parts && shown !== "welcome") { shown = ""; paint(); } });
  requestAnimationFrame(tick);
}
