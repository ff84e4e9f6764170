// DOM elements from data. Text is always inserted as text: nothing in the studio parses markup.

export const $ = (id) => document.getElementById(id);

/** An element: `on*` are listeners, `class`, `dataset` and attributes are set; null and false are skipped. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon; `label` is its name for screen readers and its tooltip. */
export const iconButton = (name, label, onclick, more = {}) =>
  h("button", { type: "button", class: "plain square", "aria-label": label, title: label, onclick, ...more }, icon(name));

export const textButton = (name, label, onclick, more = {}) =>
  h("button", { type: "button", class: "plain", onclick, ...more }, name ? icon(name) : null, h("span", {}, label));

/** Show a message at the edge of the page; `action` is [label, function]. Returns a function that removes it. */
export function toast(text, { action = null, kind = "", seconds = 6, onend = () => {} } = {}) {
  let timer = 0;
  const away = (acted) => {
    clearTimeout(timer);
    if (!box.isConnected) return;
    box.remove();
    if (!acted) onend();
  };
  const box = h("div", { class: `toast ${kind}` }, h("p", {}, text),
    action && h("button", { type: "button", class: "plain", onclick: () => { away(true); action[1](); } }, action[0]),
    iconButton("close", "Dismiss", () => away(false)));
  const rest = () => { clearTimeout(timer); timer = setTimeout(() => away(false), seconds * 1000); };
  box.addEventListener("pointerenter", () => clearTimeout(timer));
  box.addEventListener("pointerleave", rest);
  box.addEventListener("focusin", () => clearTimeout(timer));
  $("toasts").append(box);
  rest();
  return away;
}

/** Text of an adjustment: a parameter that was not used as requested. */
export const adjusted = (a) =>
  a.asked === a.used ? `${a.param}: ${a.reason}.` : `${a.param}: ${a.asked ?? "–"} became ${a.used ?? "nothing"}; ${a.reason}.`;

/** A modal dialog with a title; when it is closed it is removed, and focus returns to where it was. */
export function dialog(title, { wide = false, onclose = () => {} } = {}, ...children) {
  const from = document.activeElement;
  const box = h("dialog", { class: wide ? "wide" : "", "aria-label": title },
    h("div", { class: "bar" }, h("h2", {}, title), h("span", { class: "grow" }), iconButton("close", "Close", () => box.close())),
    ...children);
  box.addEventListener("close", () => {
    box.remove();
    onclose();
    // The browser returns focus itself; by now it may have been moved.
    if (from?.isConnected && document.activeElement === document.body) from.focus();
  });
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  document.body.append(box);
  box.showModal();
  return box;
}

export function span(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const GB = 1e9;

/** Progress of a download: bytes and speed. */
export function amount({ done_bytes: done, total_bytes: total, bytes_per_second: speed }) {
  if (!total) return "Waiting for the hub";
  const [unit, size, digits] = total < GB ? ["MB", 1e6, 0] : ["GB", GB, 1];
  return `${(done / size).toFixed(digits)} of ${(total / size).toFixed(digits)} ${unit}${speed ? ` · ${(speed / 1e6).toFixed(1)} MB/s` : ""}`;
}

export const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
