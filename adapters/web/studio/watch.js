// Queue: every job of every protocol, with its position, forecast and end.

import { call, get, picture, post } from "./api.js";
import { $, amount, clock, h, iconButton, span, toast } from "./dom.js";
import { allJobs, feed, linkNow } from "./feed.js";
import { Pace } from "./pace.js";

export const PROTOCOLS = { native: "Studio", sdapi: "A1111", openai: "OpenAI", xinference: "Xinference", "mflux-server": "mflux-server" };
const FAILED_MS = 3600_000;
const BYE_MS = 900;

const rows = new Map(); // rows by job id
let paused = false;
let others = 0;

const now = () => performance.now() / 1000;
export const name = (job) => job.prompt ?? { load: `Load ${job.model}`, ocr: "Read text", download: `Download ${job.model}`, upscale: "Enlarge a picture" }[job.type] ?? job.type ?? "A job";
const cut = (text) => (text.length > 60 ? `${text.slice(0, 57)}…` : text);

export const pace = (id) => rows.get(id)?.pace ?? null;

// ---- rows ----------------------------------------------------------------------------------------

function rowOf(job) {
  let row = rows.get(job.job_id);
  if (row) return row;
  const part = {
    image: h("img", { alt: "", hidden: true, onload: (event) => { event.target.hidden = false; } }),
    place: h("span", { "aria-hidden": "true" }),
    title: h("p", { class: "title" }),
    badge: h("span", { class: "badge" }),
    where: h("span", {}),
    bar: h("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, h("i", {})),
    eta: h("span", { class: "eta" }),
    at: h("span", { class: "muted" }),
    acts: h("div", { class: "acts" }),
  };
  const li = h("li", { class: "job", dataset: { id: job.job_id } },
    h("div", { class: "thumb" }, part.place, part.image),
    h("div", { class: "column" }, part.title, h("p", { class: "facts" }, part.badge, part.where), part.bar,
      h("p", { class: "facts" }, part.eta, h("span", { class: "grow" }), part.at)),
    part.acts);
  row = { li, part, pace: new Pace(now()), job, acts: "" };
  rows.set(job.job_id, row);
  return row;
}

function paint(row) {
  const { job, part, li } = row;
  const title = name(job);
  li.dataset.status = job.status ?? "queued";
  part.title.textContent = title;
  part.title.title = title;
  part.badge.textContent = PROTOCOLS[job.protocol] ?? job.protocol ?? "…";
  part.bar.setAttribute("aria-label", `Progress of ${cut(title)}`);
  part.where.textContent = whereOf(job);
  part.place.textContent = job.status === "queued" && job.position !== null ? job.position + (allJobs().some((one) => one.status === "generating") ? 0 : 1) : "";
  const shown = job.preview ?? job.newest?.url;
  if (shown && shown !== row.shown) {
    row.shown = shown;
    picture(job.preview ? shown : `${shown}?format=webp&max_px=160`, part.image).catch(() => {});
  }
  paintActs(row);
}

export function whereOf(job) {
  const detail = job.progress_detail;
  if (job.status === "failed") return job.error ?? "It failed.";
  if (job.stopping) return "Stopping";
  if (detail?.download) return `${job.type === "download" ? "" : "Downloading its model first: "}${amount(detail.download)}`;
  if (job.status === "queued") return job.waits_for ?? (job.position > 0 ? `${job.position} ahead` : "Next");
  if (!detail) return "Starting";
  if (detail.phase === "loading") return "Loading the model";
  const of = detail.total_images > 1 ? ` · picture ${detail.image + 1} of ${detail.total_images}` : "";
  if (detail.phase === "decoding") return `Finishing${of}`;
  if (detail.phase === "reading") return "Reading";
  return detail.steps ? `Step ${detail.step} of ${detail.steps}${of}` : `Starting${of}`;
}

/** Buttons are replaced only if others are needed, so that focus stays. */
function paintActs(row) {
  const { job, part } = row;
  const state = job.status === "failed" ? "failed" : job.status === "queued" ? "queued" : "running";
  if (row.acts === state) return;
  row.acts = state;
  const title = cut(name(job)), id = job.job_id;
  if (state === "failed") {
    part.acts.replaceChildren(
      iconButton("reuse", `Try again: ${title}`, () => act(async () => { await post(`/jobs/${id}/retry`); drop(id); })),
      iconButton("close", `Dismiss: ${title}`, () => { dismiss(id); drop(id); }));
    return;
  }
  const stop = iconButton("close", `Cancel: ${title}`, () => act(() => call("DELETE", `/jobs/${id}`)), { class: "plain square cancel" });
  part.acts.replaceChildren(...(state === "queued" ? [
    iconButton("up", `Earlier: ${title}`, () => move(id, -1)), iconButton("down", `Later: ${title}`, () => move(id, 1))] : []), stop);
}

async function act(work) {
  try { await work(); } catch (error) { toast(error.message, { kind: "bad" }); }
}

function move(id, by) {
  const line = ordered().filter((job) => job.status === "queued").map((job) => job.job_id);
  const at = line.indexOf(id), to = at + by;
  if (to < 0 || to >= line.length) return;
  const before = by < 0 ? line[to] : line[at + 2];
  act(() => post(`/jobs/${id}/move`, before ? { before } : { to: "end" }));
}

// ---- the list ------------------------------------------------------------------------------------

const rank = (job) => (job.status === "failed" ? -2 : job.status === "generating" ? -1 : job.position ?? 1e9);
const ordered = () => [...rows.values()].map((row) => row.job).sort((a, b) => rank(a) - rank(b) || String(a.created_at).localeCompare(String(b.created_at)));

function arrange() {
  const list = $("jobs"), focused = document.activeElement;
  const order = ordered().map((job) => rows.get(job.job_id).li);
  if (order.some((li, at) => list.children[at] !== li) || order.length !== list.children.length) {
    list.replaceChildren(...order);
    if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
  }
  const live = allJobs().length;
  $("queue-count").textContent = live + others;
  $("queue-count").title = others ? `${others} of other clients` : "";
  $("tab-count").textContent = live;
  $("tab-count").hidden = live === 0;
  $("queue-empty").hidden = order.length > 0;
  document.title = live ? `(${live}) mflux studio` : "mflux studio";
}

function drop(id) {
  rows.delete(id);
  arrange();
}

function take(job, ended) {
  const known = rows.has(job.job_id);
  if (ended && !known && job.status !== "failed") return;
  const row = rowOf(job);
  row.job = job;
  row.pace.hear(job, now());
  paint(row);
  if (ended && job.status !== "failed") {
    row.li.classList.add("bye");
    if (job.status === "completed") { row.part.bar.firstChild.style.transform = "scaleX(1)"; row.done = true; }
    row.part.acts.replaceChildren();
    setTimeout(() => { if (rows.get(job.job_id) === row) drop(job.job_id); }, BYE_MS);
  }
  arrange();
}

function tick() {
  const at = now();
  for (const { job, part, pace, done } of rows.values()) {
    if (done || job.status === "failed") continue;
    const shown = paused && job.status === "queued" ? pace.shown : pace.step(at);
    part.bar.firstChild.style.transform = `scaleX(${shown.toFixed(4)})`;
    part.bar.setAttribute("aria-valuenow", Math.floor(shown * 100));
    const left = pace.remaining(job, at);
    const text = paused && job.status === "queued" ? "Paused" : left === null ? "" : left < 1 ? "Any moment" : `Done in ${span(left)}`;
    if (part.eta.textContent !== text) part.eta.textContent = text;
    const about = left === null || left < 20 ? "" : `about ${clock(new Date(Date.now() + left * 1000))}`;
    if (part.at.textContent !== about) part.at.textContent = about;
  }
  requestAnimationFrame(tick);
}

// ---- pause, failures, connection -------------------------------------------------------------------

function showPaused(is) {
  paused = is;
  const button = $("pause");
  button.setAttribute("aria-pressed", String(is));
  button.querySelector("span").textContent = is ? "Resume" : "Pause";
  button.querySelector("use").setAttribute("href", is ? "#i-play" : "#i-pause");
  banner();
}

function banner() {
  const link = linkNow();
  const text = { away: "The gateway does not answer. The studio reconnects by itself.", key: "This gateway needs a key." }[link]
    ?? (paused ? "The queue is paused: running jobs go on, no new ones start." : "");
  $("banner").textContent = text;
  $("banner").hidden = !text;
  document.body.dataset.link = link;
}

export async function look() {
  try {
    const queue = await get("/queue");
    others = Math.max(0, queue.running_count + queue.pending_count - (queue.active ? 1 : 0) - queue.queued.length);
    showPaused(queue.paused);
    arrange();
  } catch { /* the banner shows it */ }
}

const dismissed = () => { try { return JSON.parse(sessionStorage.getItem("dismissed")) ?? []; } catch { return []; } };
function dismiss(id) {
  try { sessionStorage.setItem("dismissed", JSON.stringify([...dismissed(), id].slice(-50))); } catch { /* then it is shown again */ }
}

async function failures() {
  try {
    const { jobs } = await get("/jobs?status=failed&limit=5");
    for (const job of jobs)
      if (Date.now() - Date.parse(job.completed_at) < FAILED_MS && !dismissed().includes(job.job_id)) take(job, true);
  } catch { /* the banner shows it */ }
}

export function begin() {
  feed.addEventListener("state", () => {
    const live = new Set(allJobs().map((job) => job.job_id));
    for (const [id, row] of rows) if (!live.has(id) && row.job.status !== "failed") rows.delete(id);
    for (const job of allJobs()) take(job, false);
    arrange();
    void look();
    void failures();
  });
  let soon = 0;
  feed.addEventListener("job", ({ detail }) => {
    take(detail.job, detail.ended);
    soon ||= setTimeout(() => { soon = 0; void look(); }, 1500); // another client may have paused it
  });
  feed.addEventListener("link", banner);
  $("pause").addEventListener("click", () => act(async () => {
    showPaused((await post(paused ? "/queue/resume" : "/queue/pause")).paused);
    channel.postMessage({ paused });
  }));
  const channel = new BroadcastChannel("studio-queue");
  channel.onmessage = ({ data }) => showPaused(data.paused);
  requestAnimationFrame(tick);
}
