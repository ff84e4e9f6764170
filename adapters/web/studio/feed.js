// Events for one tab: from the shared worker if there is one, otherwise from a stream of its own.

import { askKey, currentKey, onKey, setKey } from "./api.js";
import { Live } from "./live.js";

export const feed = new EventTarget();
const jobs = new Map();
let link = "joining";
let port = null;
let own = null;

export const allJobs = () => [...jobs.values()];
export const linkNow = () => link;

const emit = (type, detail) => feed.dispatchEvent(new CustomEvent(type, { detail }));

function hear(message) {
  if (message.type === "state") {
    jobs.clear();
    for (const job of message.jobs) jobs.set(job.job_id, job);
    emit("state");
    setLink(message.link);
  } else if (message.type === "job") {
    const { job } = message;
    const ended = ["completed", "failed", "cancelled"].includes(job.status);
    if (ended) jobs.delete(job.job_id); else jobs.set(job.job_id, job);
    emit("job", { job, ended });
  } else if (message.type === "link") {
    setLink(message.link);
  } else if (message.type === "key" && !currentKey()) {
    setKey(message.key);
  }
}

function setLink(next) {
  const before = link;
  link = next;
  emit("link", { link, before });
  if (link === "key") void askKey(Boolean(currentKey()));
}

function join() {
  const key = currentKey();
  if (port) return port.postMessage({ type: "join", key });
  own?.stop();
  own = new Live(hear, key);
  hear(own.state());
}

export function begin() {
  try {
    const worker = new SharedWorker("/studio/worker.js", { type: "module", name: "studio" });
    port = worker.port;
    port.onmessage = ({ data }) => hear(data);
    worker.onerror = () => { if (port && link === "joining") { port = null; join(); } };
  } catch {
    port = null; // this browser has no shared workers, such as Chrome on Android
  }
  join();
  onKey(join);
  const wake = () => { if (!document.hidden) { if (port) port.postMessage({ type: "wake" }); else own?.wake(); } };
  document.addEventListener("visibilitychange", wake);
  addEventListener("online", wake);
  addEventListener("pagehide", () => port?.postMessage({ type: "leave" }));
  addEventListener("pageshow", (event) => { if (event.persisted) join(); });
}
