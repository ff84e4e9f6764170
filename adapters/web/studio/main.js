// Start of the studio. Each module has its own part of the page and listens to the feed.

import { drawingOf } from "./api.js";
import { $, toast } from "./dom.js";
import * as feed from "./feed.js";
import * as fleet from "./fleet.js";
import { inputs } from "./inputs.js";
import * as keep from "./keep.js";
import * as make from "./make.js";
import * as models from "./models.js";
import * as stage from "./stage.js";
import { showDropped } from "./view.js";
import * as watch from "./watch.js";

const POLL_MS = 10_000;

function views() {
  const buttons = [...document.querySelectorAll(".tabs button")];
  const paint = () => {
    for (const button of buttons)
      if (button.dataset.view === document.body.dataset.view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
  };
  for (const button of buttons) button.addEventListener("click", () => { document.body.dataset.view = button.dataset.view; scrollTo(0, 0); paint(); });
  document.addEventListener("view", paint);
}

function theme() {
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* then it lasts until the page is closed */ }
  });
}

async function dropped(file) {
  if (!file.type.startsWith("image/")) return void toast("That file is not a picture.", { kind: "bad" });
  try { showDropped(file, await drawingOf(file)); } catch (error) { toast(error.message, { kind: "bad" }); }
}

function dropping() {
  let depth = 0;
  const veil = (is) => { $("veil").hidden = !is; };
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files") && !document.querySelector("dialog[open]");
  addEventListener("dragenter", (event) => { if (carries(event)) { depth += 1; veil(true); } });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) veil(false); });
  addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  const over = () => { depth = 0; veil(false); };
  document.addEventListener("dropped", over);
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    over();
    const [file] = event.dataTransfer.files;
    if (file) void dropped(file);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    if (inputs.canBegin()) void inputs.begin(file).then(() => toast("The pasted picture is the input now."));
    else void dropped(file);
  });
}

function keys() {
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]):not([type=range]), textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("search").focus(); }
    if (event.key === "n") { event.preventDefault(); $("prompt").focus(); }
  });
}

function polling() {
  setInterval(() => { if (!document.hidden && feed.linkNow() === "live") { void watch.look(); void models.look(); void fleet.look(); } }, POLL_MS);
}

views();
theme();
dropping();
keys();
watch.begin();
keep.begin();
stage.begin();
models.begin();
fleet.begin();
feed.begin();
polling();
const ready = make.begin();
void ready.catch((error) => { if (error.status !== 401) toast("The gateway does not answer.", { kind: "bad" }); });
feed.feed.addEventListener("link", ({ detail: { link, before } }) => {
  if (link === "live" && before !== "live" && (make.known().length === 0 || before === "away")) void make.loadModels().catch(() => {});
});
