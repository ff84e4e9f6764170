// Progress bar: it moves with time, follows the forecast, and never goes back.

const WAIT_SHARE = 0.2; // share of the bar for the wait before the job starts
const AHEAD = 0.985; // how far time alone may move it
const BLIND = 0.4; // the same before the first step

export class Pace {
  constructor(now) {
    this.shown = 0;
    this.base = 0;
    this.running = false;
    this.real = 0;
    this.ahead = AHEAD;
    this.left = null; // seconds left in this phase
    this.at = now;
    this.steppedAt = now;
  }

  /** Take the job's state at `now`, in seconds. */
  hear(job, now) {
    this.step(now);
    const running = job.status === "generating";
    if (running !== this.running) { this.base = this.shown; this.running = running; this.real = 0; }
    const detail = job.progress_detail;
    const left = running ? detail?.eta_seconds ?? job.eta_seconds : job.forecast?.wait_seconds;
    this.left = left ?? this.left;
    this.at = now;
    const steps = (detail?.steps ?? 0) * (detail?.total_images ?? 1);
    this.ahead = !running ? AHEAD : steps ? Math.min(AHEAD, (detail.progress ?? 0) + 1.5 / steps) : BLIND;
    if (running && detail) this.real = Math.max(this.real, detail.progress ?? 0);
  }

  /** The end of the bar in this phase. */
  get end() {
    return this.running ? 1 : Math.max(this.base, WAIT_SHARE);
  }

  /** 0 to 1; never decreases with a later `now`. */
  step(now) {
    const past = Math.max(0, Math.min(1, now - this.steppedAt));
    this.steppedAt = now;
    const most = this.base + (this.end - this.base) * this.ahead;
    const seen = this.base + (this.end - this.base) * this.real;
    if (this.left !== null && this.shown < most) {
      const left = Math.max(0.4, this.left - (now - this.at));
      this.shown = Math.min(most, this.shown + ((this.end - this.shown) * past) / left * 0.9);
    }
    if (this.shown < seen) this.shown = Math.min(seen, this.shown + (seen - this.shown) * Math.min(1, past * 7) + past * 0.02);
    return this.shown;
  }

  /** Seconds until it is done, counted down between two events; null if unknown. */
  remaining(job, now) {
    const eta = this.running ? job.progress_detail?.eta_seconds ?? job.eta_seconds : job.eta_seconds;
    return eta === null || eta === undefined ? null : Math.max(0, eta - (now - this.at));
  }
}
