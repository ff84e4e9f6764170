// Workers: the processes that run jobs. Shown where there are several, or where the only one takes no jobs.

import { get, post } from "./api.js";
import { $, h, span, textButton, toast } from "./dom.js";
import { feed, linkNow } from "./feed.js";

const SILENT_S = 15;
const DOTS = { ready: "up", down: "down" };

const rows = new Map(); // rows by the worker's name

/** Its state in words. */
function stateOf(one) {
  if (one.seen_seconds_ago > SILENT_S) return `Silent for ${span(one.seen_seconds_ago)}`;
  if (one.draining) return one.running_count ? "Draining" : "Drained";
  if (one.state === "ready") return one.running_count ? "At work" : "Idle";
  return { starting: "Starting", down: "Down" }[one.state] ?? one.state;
}

function factsOf(one) {
  return [
    one.device, one.memory_limit_bytes && `${Math.round(one.memory_limit_bytes / 1e9)} GB`, one.loaded_model,
    one.seconds_per_image && `${one.seconds_per_image < 10 ? one.seconds_per_image.toFixed(1) : Math.round(one.seconds_per_image)} s a picture`,
    one.running_count > 1 && `${one.running_count} jobs`, !one.draining && one.state !== "ready" && one.reason,
  ].filter(Boolean).join(" · ");
}

async function act(name, word) {
  try {
    await post(`/workers/${encodeURIComponent(name)}/${word}`);
    if (word === "drain") toast(`${name} begins no more jobs; what runs there goes on.`);
  } catch (error) {
    toast(error.status ? error.message : "The gateway does not answer.", { kind: "bad" });
  }
  await look();
}

/** A row; its button is replaced only if it does something else, so that focus stays. */
function rowOf(one) {
  let row = rows.get(one.name);
  if (!row) {
    row = { state: h("span", { class: "muted" }), facts: h("p", { class: "note" }), acts: h("div", {}), draining: null };
    row.li = h("li", { class: "model" }, h("div", { class: "column" },
      h("p", { class: "title engine" }, h("i", { class: "dot" }), one.name, row.state), row.facts), row.acts);
    rows.set(one.name, row);
  }
  row.li.querySelector(".engine").dataset.state = one.seen_seconds_ago > SILENT_S ? "down" : one.draining ? "" : DOTS[one.state] ?? "away";
  row.state.textContent = stateOf(one);
  row.facts.textContent = factsOf(one);
  if (row.draining !== one.draining) {
    row.draining = one.draining;
    const hadFocus = row.acts.contains(document.activeElement);
    const button = one.draining
      ? textButton("play", "Resume", () => act(one.name, "resume"), { "aria-label": `Resume ${one.name}` })
      : textButton("pause", "Drain", () => act(one.name, "drain"), { "aria-label": `Drain ${one.name}`, title: "Begin no more jobs there" });
    row.acts.replaceChildren(button);
    if (hadFocus) button.focus();
  }
  return row.li;
}

function paint(workers) {
  $("workers").hidden = workers.length < 2 && !workers.some((one) => one.draining);
  for (const name of rows.keys()) if (!workers.some((one) => one.name === name)) rows.delete(name);
  const list = $("worker-rows"), order = workers.map(rowOf);
  if (order.length !== list.children.length || order.some((li, at) => list.children[at] !== li)) list.replaceChildren(...order);
}

export async function look() {
  try { paint((await get("/workers")).workers); } catch { /* the banner shows it */ }
}

export function begin() {
  feed.addEventListener("link", () => { if (linkNow() === "live") void look(); });
}
