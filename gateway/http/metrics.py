"""Metrics for Prometheus. Knows no route; contains no prompt, no key and no address.

Source: Prometheus metric naming, https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from engine.protocol import Failed
from gateway.asgi import App, Message, Receive, Scope, Send
from gateway.fleet.node import SeenNode
from gateway.fleet.reports import is_up
from gateway.jobs.facts import ImageDone, Started
from gateway.jobs.job import Job, JobEvent
from gateway.jobs.plans import LANES
from gateway.service.service import JobService

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WORKERS_MOST = 200
"""The most workers shown at once."""
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1800)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """`on_event` takes every state event, `counted` wraps the application; `text` is the response to a scrape."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        name = "mflux_gateway"
        ProcessCollector(registry=registry)

        def counter(what: str, about: str, *labels: str) -> Counter:
            return Counter(f"{name}_{what}", about, labels, registry=registry)

        def gauge(what: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"{name}_{what}", about, labels, registry=registry)

        def seconds(what: str, about: str, *labels: str) -> Histogram:
            return Histogram(f"{name}_{what}", about, labels, registry=registry, buckets=SECONDS)

        self._submitted = counter("jobs_submitted", "Submitted jobs.", "protocol")
        self._ended = counter("jobs_ended", "Ended jobs, by final state.", "protocol", "state")
        self._failures = counter("job_failures", "Failed jobs, by failure code.", "code")
        self._requeued = counter("jobs_requeued", "Running jobs that returned to the queue.", "reason")
        self._images = counter("images", "Finished images.", "protocol")
        self._waits = seconds("job_wait_seconds", "Seconds from submit to start.", "protocol")
        self._takes = seconds("job_run_seconds", "Seconds from start to success.", "protocol")
        self._requests = counter("http_requests", "Answered HTTP requests.", "protocol", "method", "status")
        self._request_s = seconds("http_request_seconds", "Seconds until a response began.", "protocol")

        self._jobs = gauge("jobs", "Jobs in the store.", "protocol", "state")
        self._waiting = gauge("queue_waiting", "Waiting jobs.", "lane")
        self._running = gauge("queue_running", "Running jobs.", "lane")
        self._paused = gauge("queue_paused", "1 while the queue is paused.")
        self._streams = gauge("event_streams", "Open event streams.")
        self._sync_waits = gauge("sync_waits", "Requests that wait for their image.")
        self._up = gauge("engine_up", "1 while the engine is ready.")
        self._starts = gauge("engine_starts", "Engine processes since the gateway started; 1 means no restart.")
        self._deaths = gauge("engine_deaths", "Engine processes that ended unexpectedly.")
        self._memory = gauge("engine_memory_bytes", "Memory of MLX: active, peak and limit.", "kind")
        self._forecasts = gauge("forecasts", "Forecasts that were compared with actual times.")
        self._error = gauge(
            "forecast_error_ratio", "Median relative error of the time until done, or started.", "until"
        )
        self._coverage = gauge("forecast_coverage_ratio", "Share of jobs done within their 90 % interval.")
        self._worker_up = gauge("worker_up", "1 while the worker is ready, or drains.", "worker")
        self._worker_jobs = gauge("worker_jobs", "Jobs that the worker runs.", "worker")
        self._worker_memory = gauge("worker_memory_limit_bytes", "Memory that the worker's engine may use.", "worker")
        self._worker_seen = gauge("worker_seen_seconds", "Seconds since the worker's last report.", "worker")

    # ---- events ----------------------------------------------------------------------------------

    def on_event(self, job: Job, event: JobEvent) -> None:
        """Count a state event; `job` is the job after it."""
        fact, protocol = event.fact, job.protocol
        match fact:
            case ImageDone():
                self._images.labels(protocol).inc()
            case Started(attempt=1):
                self._waits.labels(protocol).observe(max(0.0, event.steady - job.created_steady))
            case Failed(code=code):
                self._failures.labels(code).inc()
            case _:
                pass
        if fact.kind == "queued":
            self._submitted.labels(protocol).inc()
        elif fact.kind == "requeued":
            self._requeued.labels(fact.reason).inc()
        elif job.state is not None and job.state.terminal:
            self._ended.labels(protocol, job.state).inc()
            if fact.kind == "succeeded" and job.seconds is not None:
                self._takes.labels(protocol).observe(max(0.0, job.seconds))

    async def counted(self, app: App, protocol: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one request through `app`; its path is not recorded, since there are endlessly many."""
        began, status = time.monotonic(), "none"

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                self._request_s.labels(protocol).observe(time.monotonic() - began)
            await send(message)

        try:
            await app(scope, receive, noting)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._requests.labels(protocol, method, status).inc()

    # ---- gauges ----------------------------------------------------------------------------------

    async def text(self, service: JobService, *, streams: int, waits: int, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that a scraper accepts, and the media type of that format.

        `streams` are the open event streams, `waits` the requests that wait for their image.
        """
        engine, record = service.engine, service.events.forecast_record
        self._jobs.clear()
        for (state, protocol), count in (await service.stats()).by_protocol.items():
            self._jobs.labels(protocol, state).set(count)
        for lane in LANES:
            self._waiting.labels(lane).set(service.queue.depth(lane))
            self._running.labels(lane).set(service.queue.running(lane))
        self._paused.set(service.queue.paused)
        self._streams.set(streams)
        self._sync_waits.set(waits)
        self._up.set(engine.works)
        self._starts.set(engine.starts)
        self._deaths.set(engine.deaths)
        self._memory.clear()
        if engine.memory is not None:
            self._memory.labels("active").set(engine.memory.active_bytes)
            self._memory.labels("peak").set(engine.memory.peak_bytes)
        if engine.memory_limit_bytes is not None:
            self._memory.labels("limit").set(engine.memory_limit_bytes)
        self._forecasts.set(record.count)
        for until, error in (("done", record.median_error), ("begun", record.median_wait_error)):
            if error is not None:
                self._error.labels(until).set(error)
        self._coverage.set(float("nan") if record.coverage is None else record.coverage)
        self._set_workers(await service.workers.nodes())
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def _set_workers(self, workers: Sequence[SeenNode]) -> None:
        """Show the processes of the last minute, and no others; of one name the one that reported last."""
        for metric in (self._worker_up, self._worker_jobs, self._worker_memory, self._worker_seen):
            metric.clear()
        for seen in sorted(workers, key=lambda seen: seen.seen_s)[:WORKERS_MOST][::-1]:
            node = seen.node
            self._worker_up.labels(node.name).set(is_up(seen))
            self._worker_jobs.labels(node.name).set(len(node.jobs))
            self._worker_seen.labels(node.name).set(seen.seen_s)
            if node.memory_limit_bytes is not None:
                self._worker_memory.labels(node.name).set(node.memory_limit_bytes)
