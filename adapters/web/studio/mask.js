// Mask editor: a brush on an image. Painted parts become white, which is generated again; the rest is black.

import { dialog, h, textButton } from "./dom.js";

const COLOUR = "#ff7a3d";
const KEY_STEP = 0.02;

/** The mask as a PNG of the image's size; null if the dialog is closed. */
export async function paintMask(pictureBlob, maskBlob) {
  const image = await createImageBitmap(pictureBlob);
  const { width, height } = image;
  const below = h("canvas", { width, height, "aria-hidden": "true" });
  below.getContext("2d").drawImage(image, 0, 0);
  const paint = h("canvas", { width, height, class: "paint", tabindex: 0, role: "img",
    "aria-label": "Mask. Arrows move the brush, space paints, E erases, brackets change its size." });
  const pen = paint.getContext("2d", { willReadFrequently: true });
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = pen.fillStyle = COLOUR;
  if (maskBlob) await fromMask(pen, maskBlob, width, height);

  let erase = false, at = null, down = false, history = [];
  const size = h("input", { type: "range", min: 0.01, max: 0.4, step: 0.01, value: 0.12, id: "brush" });
  const ring = h("i", { class: "ring" });
  const px = () => Number(size.value) * Math.max(width, height);

  const remember = () => { history.push(pen.getImageData(0, 0, width, height)); history = history.slice(-20); };
  const undo = () => { const last = history.pop(); if (last) pen.putImageData(last, 0, 0); };

  function line(to) {
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.lineWidth = px();
    pen.beginPath();
    pen.moveTo(at.x, at.y);
    pen.lineTo(to.x + 0.01, to.y);
    pen.stroke();
    at = to;
  }

  function place(point) {
    const box = paint.getBoundingClientRect(), scale = box.width / width;
    ring.style.width = ring.style.height = `${px() * scale}px`;
    ring.style.left = `${point.x * scale}px`;
    ring.style.top = `${point.y * scale}px`;
    ring.hidden = false;
  }

  const point = (event) => {
    const box = paint.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
  };
  paint.addEventListener("pointerdown", (event) => {
    paint.setPointerCapture(event.pointerId);
    remember();
    down = true;
    at = point(event);
    line(at);
  });
  paint.addEventListener("pointermove", (event) => {
    for (const each of event.getCoalescedEvents?.() ?? [event]) if (down) line(point(each));
    at = point(event);
    place(at);
  });
  for (const name of ["pointerup", "pointercancel"]) paint.addEventListener(name, () => { down = false; });
  paint.addEventListener("pointerleave", () => { if (!down) ring.hidden = true; });
  paint.addEventListener("keydown", (event) => {
    const go = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    at ??= { x: width / 2, y: height / 2 };
    if (go) {
      const step = KEY_STEP * Math.max(width, height);
      at = { x: Math.max(0, Math.min(width, at.x + go[0] * step)), y: Math.max(0, Math.min(height, at.y + go[1] * step)) };
    } else if (event.key === " ") { remember(); line(at); }
    else if (event.key === "e" || event.key === "E") eraser.click();
    else if (event.key === "[" || event.key === "]") size.value = Number(size.value) + (event.key === "[" ? -0.02 : 0.02);
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
    else return;
    event.preventDefault();
    place(at);
  });

  const eraser = textButton("close", "Erase", () => { erase = !erase; eraser.setAttribute("aria-pressed", String(erase)); },
    { "aria-pressed": "false" });
  const whole = textButton("swap", "Invert", () => {
    remember();
    pen.globalCompositeOperation = "xor";
    pen.fillRect(0, 0, width, height);
  });
  const board = h("div", { class: "board" }, below, paint, ring);
  board.style.aspectRatio = `${width} / ${height}`;
  board.style.setProperty("--ratio", String(width / height));
  ring.hidden = true;

  return new Promise((resolve) => {
    let result = null;
    const done = h("button", { type: "button", class: "draw", onclick: async () => { result = await toMask(pen, width, height); box.close(); } },
      "Use this mask");
    const box = dialog("Paint the area to change", { wide: true, onclose: () => resolve(result) },
      h("div", { class: "tools" }, h("label", { for: "brush" }, "Brush"), size, eraser, whole,
        textButton("reuse", "Undo", undo), h("span", { class: "grow" }), done), board);
    paint.focus();
  });
}

async function fromMask(pen, blob, width, height) {
  pen.drawImage(await createImageBitmap(blob), 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = pixels.data[i];
    pixels.data[i] = 255; pixels.data[i + 1] = 122; pixels.data[i + 2] = 61;
  }
  pen.putImageData(pixels, 0, 0);
}

function toMask(pen, width, height) {
  const pixels = pen.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const is = pixels.data[i + 3] > 127 ? 255 : 0;
    pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = is;
    pixels.data[i + 3] = 255;
  }
  const out = h("canvas", { width, height });
  out.getContext("2d").putImageData(pixels, 0, 0);
  return new Promise((resolve) => out.toBlob(resolve, "image/png"));
}
