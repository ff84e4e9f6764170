// All jobs, from /api/v1/events. Runs in a worker that the tabs share, or in a tab if there are no shared workers.

import { exact } from "./numbers.js";

const BASE = "/api/v1";
const SILENCE_MS = 45_000; // three heartbeats
const ENDS = { complete: "completed", error: "failed", cancelled: "cancelled" };

export class Live {
  /** `tell(message)` is called with {type: "state"}, {type: "job"} and {type: "link"}. */
  constructor(tell, key) {
    this.tell = tell;
    this.key = key;
    this.jobs = new Map();
    this.last = null;
    this.link = "joining";
    this.lastByteAt = Date.now();
    this.stopped = false;
    this.run();
    this.timer = setInterval(() => this.watch(), 5000);
  }

  state() {
    return { type: "state", jobs: [...this.jobs.values()], link: this.link };
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
    this.abort?.abort();
  }

  /** Reconnect if the machine slept or the stream is silent. */
  watch() {
    const now = Date.now();
    const hasSlept = this.ticked && now - this.ticked > 20_000;
    this.ticked = now;
    if (hasSlept || now - this.lastByteAt > SILENCE_MS) this.abort?.abort();
  }

  wake() {
    this.watch();
    this.awake?.();
  }

  headers(more = {}) {
    return { ...(this.key ? { "X-API-Key": this.key } : {}), ...more };
  }

  setLink(link) {
    if (link === this.link) return;
    this.link = link;
    this.tell({ type: "link", link });
  }

  async run() {
    let wait = 400;
    while (!this.stopped) {
      const began = Date.now();
      this.abort = new AbortController();
      try {
        const resume = this.last === null ? {} : { "Last-Event-ID": this.last };
        this.lastByteAt = Date.now();
        const answer = await fetch(`${BASE}/events`, {
          headers: this.headers(resume), signal: this.abort.signal, cache: "no-store" });
        if (answer.status === 401) { this.setLink("key"); return; }
        if (!answer.ok) throw new Error(String(answer.status));
        this.setLink("live");
        await this.read(answer.body.getReader());
      } catch { /* the state of the link shows it; it is tried again */ }
      if (this.stopped) return;
      this.setLink("away");
      wait = Date.now() - began > 10_000 ? 400 : Math.min(2500, wait * 1.6);
      await new Promise((resolve) => { this.awake = resolve; setTimeout(resolve, wait); });
    }
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.lastByteAt = Date.now();
      const frames = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) this.take(frame);
    }
  }

  take(frame) {
    let event = "message", data = "", id = null;
    for (const line of frame.split("\n")) {
      const colon = line.indexOf(":");
      if (colon <= 0) continue;
      const value = line.slice(colon + 1).trimStart();
      const name = line.slice(0, colon);
      if (name === "event") event = value;
      else if (name === "data") data += value;
      else if (name === "id") id = value;
    }
    if (data) this.hear(event, exact(data));
    if (id !== null) this.last = id;
  }

  hear(event, data) {
    const id = data.job_id;
    switch (event) {
      case "snapshot": return this.snapshot(data.jobs);
      case "queued": return void this.fetch(id);
      case "position":
        if (!this.jobs.has(id)) return; // a job at the end of a long queue, which the snapshot omits
        return this.change(id, { position: data.position, eta_seconds: data.eta_seconds, forecast: data, waits_for: data.waits_for ?? null });
      case "started": return this.change(id, { status: "generating", position: 0, attempt: data.attempt });
      case "requeued": return this.change(id, { status: "queued", progress_detail: null });
      case "cancel_requested": return this.change(id, { stopping: true });
      case "downloading": // also for a job that waits for its model
        return this.change(id, { eta_seconds: data.eta_seconds, progress_detail: {
          phase: "downloading", progress: data.done_bytes / (data.total_bytes || 1), eta_seconds: data.eta_seconds, download: data } });
      case "loading": case "progress":
        return this.change(id, { status: data.status ?? "generating", progress_detail: data, eta_seconds: data.eta_seconds });
      case "adjusted": return this.change(id, { newAdjustments: [...(this.jobs.get(id)?.newAdjustments ?? []), ...data.adjustments] });
      case "preview": return this.change(id, { preview: data.url });
      case "image": return this.change(id, { newest: { id: data.id, url: data.url, seed: data.seed } });
      case "complete": case "error": case "cancelled":
        return this.change(id, { status: ENDS[event], error: data.error ?? null, eta_seconds: null, position: null });
    }
  }

  snapshot(jobs) {
    const before = this.jobs;
    this.jobs = new Map(jobs.map((job) => [job.job_id, job]));
    this.tell(this.state());
    for (const [id] of before) if (!this.jobs.has(id)) void this.fetch(id); // it ended while the stream was closed
  }

  change(id, patch) {
    const job = this.jobs.get(id);
    if (!job) { this.jobs.set(id, { job_id: id, ...patch }); void this.fetch(id, patch); return; }
    Object.assign(job, patch);
    this.publish(job);
  }

  publish(job) {
    if (Object.values(ENDS).includes(job.status)) this.jobs.delete(job.job_id);
    this.tell({ type: "job", job: { ...job } });
  }

  /** Fetch a job of which only the id is known; events that arrive meanwhile take precedence. */
  async fetch(id, since = {}) {
    const known = this.jobs.get(id) ?? { job_id: id, ...since };
    this.jobs.set(id, known);
    try {
      const answer = await fetch(`${BASE}/jobs/${id}?images=false`, { headers: this.headers() });
      if (!answer.ok) throw new Error(String(answer.status));
      const job = exact(await answer.text());
      const now = this.jobs.get(id) ?? known;
      const ended = Object.values(ENDS).includes(job.status);
      this.jobs.set(id, ended ? { ...now, ...job } : { ...job, ...now });
      this.publish(this.jobs.get(id));
    } catch {
      this.jobs.delete(id);
    }
  }
}
