// Images of the gallery, which the gallery, the stage and the dialogs share. A "pictures" event says that they changed.

import { call } from "./api.js";
import { toast } from "./dom.js";

const UNDO_S = 7;

let images = [];
const removed = new Map(); // id to the function that undoes the removal
const others = new BroadcastChannel("studio-pictures");

export const allImages = () => images;
export const shownImages = () => images.filter((image) => !removed.has(image.id));
export const words = (image) => image.drawing?.prompt ?? "An enlarged picture";

const changed = () => document.dispatchEvent(new Event("pictures"));

export function setImages(next) {
  images = next;
  changed();
}

/** Hide an image at once, and delete it on the gateway unless that is undone. */
export function remove(image) {
  const undo = () => { removed.delete(image.id); changed(); };
  removed.set(image.id, undo);
  changed();
  toast("The picture is removed.", { action: ["Undo", undo], seconds: UNDO_S, onend: () => deleteRemoved(image.id) });
}

async function deleteRemoved(id, options = {}) {
  if (!removed.has(id)) return;
  try {
    await call("DELETE", `/images/${id}`, undefined, options);
  } catch (error) {
    if (error.status !== 404) { toast(error.message, { kind: "bad" }); removed.get(id)?.(); return; }
  }
  forget(id);
  others.postMessage({ gone: id });
}

function forget(id) {
  removed.delete(id);
  setImages(images.filter((image) => image.id !== id));
}

others.onmessage = ({ data }) => forget(data.gone);
addEventListener("pagehide", () => { for (const id of removed.keys()) void deleteRemoved(id, { keepalive: true }); });
