"""R-20: a gateway that runs for hours. Run by `python -m benchmarks.soak hours`.

Three requests a second, of all protocols in turn, with the fake engine; prints the gateway's resources at intervals.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.live import Live

PER_S = 3.0
TINY = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
REQUESTS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("POST", "/api/v1/generate", TINY),
    ("POST", "/sdapi/v1/txt2img", TINY),
    ("POST", "/v1/images/generations", {"prompt": "a red circle", "size": "64x64", "response_format": "b64_json"}),
    ("POST", "/api/generate", {**TINY, "num_inference_steps": 1}),
    ("GET", "/api/v1/jobs", None),
    ("GET", "/api/v1/queue", None),
    ("GET", "/sdapi/v1/progress", None),
    ("GET", "/api/tasks", None),
    ("GET", "/v1/models", None),
    ("GET", "/metrics", None),
    ("GET", "/api/v1/images?limit=20", None),
    ("GET", "/health/ready", None),
)
MARKS = 20


def hours(folder: Path, seconds: float, say: Callable[[str, Any], None]) -> None:
    """Send requests to a gateway for so long; prints a line of figures twenty times. Raises: SystemExit at a 5xx."""
    config = {"generation": {"previews": False}, "retention": {"jobs": 5000}}
    gateway = Live(folder, config=config).start()
    outcomes: Counter[str] = Counter()
    lock, local = threading.Lock(), threading.local()

    def send(n: int) -> None:
        method, path, body = REQUESTS[n % len(REQUESTS)]
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=gateway.url, timeout=60)
        try:
            answer = local.client.request(method, path, json=body).status_code
        except httpx.HTTPError as error:
            answer = type(error).__name__
        with lock:
            outcomes[f"{path.partition('?')[0]} {answer}"] += 1

    try:
        assert gateway.process is not None
        process = psutil.Process(gateway.process.pid)
        began = time.monotonic()
        print(f"{'seconds':>8} {'requests':>9} {'MB':>7} {'files':>6} {'threads':>8} {'WAL MB':>7} {'log MB':>7}")
        with ThreadPoolExecutor(8) as pool:
            mark = 0.0
            for n in itertools.count():
                now = time.monotonic() - began
                if now >= mark or now >= seconds:
                    print(_held(gateway, process, now, outcomes.total()), flush=True)
                    mark += seconds / MARKS
                if now >= seconds:
                    break
                pool.submit(send, n)
                time.sleep(max(0.0, began + (n + 1) / PER_S - time.monotonic()))
    finally:
        gateway.stop()
    for name, many in sorted(outcomes.items()):
        say(name, many)
    if bad := [name for name in outcomes if not name.rpartition(" ")[2].startswith("2")]:
        raise SystemExit(f"not all went well: {bad}")


def _held(gateway: Live, process: psutil.Process, now: float, requests: int) -> str:
    wal = gateway.folder / "data" / "jobs.sqlite3-wal"
    sizes = [file.stat().st_size / 2**20 if file.exists() else 0.0 for file in (wal, gateway.folder / "gateway.log")]
    rss, files, threads = process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()
    return f"{now:8.0f} {requests:9} {rss:7.1f} {files:6} {threads:8} {sizes[0]:7.1f} {sizes[1]:7.1f}"
