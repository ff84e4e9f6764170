// Requests to the gateway: /api/v1, with the key if there is one.

import { dialog, h } from "./dom.js";
import { exact } from "./numbers.js";

export const BASE = "/api/v1";
const STORAGE_KEY = "key";

export class Refused extends Error {
  constructor(status, body) {
    const short = body?.code === "OOM_ERROR";
    super(short ? `Insufficient memory. ${body.details.explanation}` : body?.error ?? `The gateway answered ${status}.`);
    /** The job seems not to fit into memory, but may be tried. */
    this.short = short;
    this.status = status;
    this.code = body?.code ?? "";
    this.param = body?.details?.param ?? null;
  }
}

let key = stored();
let asking = null;
const waiting = new Set();

function stored() {
  try { return sessionStorage.getItem(STORAGE_KEY); } catch { return null; }
}

export const currentKey = () => key;

export function setKey(value) {
  key = value;
  try { sessionStorage.setItem(STORAGE_KEY, value); } catch { /* then the key is lost with the page */ }
  for (const listener of waiting) listener(value);
}

export const onKey = (listener) => waiting.add(listener);

const headers = (more = {}) => ({ ...(key ? { "X-API-Key": key } : {}), ...more });

/** The JSON response of a route. Raises: Refused, TypeError if the gateway does not answer. */
export async function call(method, path, body, options = {}) {
  const form = body instanceof FormData;
  const payload = body === undefined || form ? body : JSON.stringify(body);
  const type = body === undefined || form ? {} : { "Content-Type": "application/json" };
  const used = key;
  const answer = await fetch(BASE + path, { method, body: payload, headers: headers(type), ...options });
  if (answer.status === 401) {
    if (key === used) await askKey(Boolean(used));
    if (key !== used) return call(method, path, body, options);
  }
  const content = await answer.text().then(exact).catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, content);
  return content;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

export const modelPath = (one) => `/models/${one.title.split("/").map(encodeURIComponent).join("/")}`;

/** Ask for the key, once for several calls. The promise also resolves if the dialog is closed. */
export function askKey(wrong = false) {
  asking ??= new Promise((resolve) => {
    const field = h("input", { type: "password", id: "key", autocomplete: "current-password", required: true });
    const form = h("form", { class: "ask", onsubmit: (event) => {
      event.preventDefault();
      setKey(field.value.trim());
    } },
    h("p", {}, wrong ? "That key is wrong." : "This gateway needs a key."),
    h("label", { for: "key" }, "Key"), field,
    h("p", { class: "note" }, "Kept until this tab is closed."),
    h("button", { class: "draw", type: "submit" }, "Open the studio"));
    const close = () => box.close();
    const box = dialog("Key", { onclose: () => { waiting.delete(close); asking = null; resolve(); } }, form);
    waiting.add(close);
    field.focus();
  });
  return asking;
}

/** Show an image of the gateway in an <img>; with a key it is fetched first. */
export async function picture(path, into) {
  if (!key) { into.src = path; return; }
  const blob = await fetched(path);
  const url = URL.createObjectURL(blob);
  into.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  into.addEventListener("error", () => URL.revokeObjectURL(url), { once: true });
  into.src = url;
}

export async function fetched(path) {
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
  return answer.blob();
}

export const small = (url, px = 360) => `${url}?format=webp&quality=82&max_px=${px}`;

/** Upload an image as an input; returns {id, width, height}. */
export function upload(blob) {
  const form = new FormData();
  form.append("image", blob, "picture");
  return call("POST", "/uploads", form);
}

/** The settings in an image file; null if there are none. */
export async function drawingOf(blob) {
  const form = new FormData();
  form.append("image", blob, "picture");
  return (await call("POST", "/images/drawing", form)).drawing;
}

export async function download(image, format) {
  const blob = await fetched(`${image.url}?format=${format}&quality=92`);
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: `${image.id}.${format === "jpeg" ? "jpg" : format}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
