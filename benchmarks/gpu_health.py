"""Times of /health/live: python -m benchmarks.gpu_health URL, which asks until its input ends, then prints them.

It is a process of its own, so that clients which read large answers do not delay the measurement.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Self

import httpx

EVERY_S = 0.01


class Health:
    """Context manager that measures while it is open."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_health", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.times_ms: list[float] = []

    @property
    def p99_ms(self) -> float:
        """Not a number where hardly any request was made."""
        return statistics.quantiles(self.times_ms, n=100)[98] if len(self.times_ms) > 1 else float("nan")

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        output, _ = self._process.communicate()
        self.times_ms = json.loads(output or "[]")


def main() -> None:
    over = threading.Event()
    times_ms: list[float] = []

    def ask() -> None:
        with httpx.Client(base_url=sys.argv[1], timeout=60) as client:
            while not over.wait(EVERY_S):
                began = time.perf_counter()
                client.get("/health/live").raise_for_status()
                times_ms.append((time.perf_counter() - began) * 1000)

    print("ready", flush=True)
    thread = threading.Thread(target=ask)
    thread.start()
    sys.stdin.read()
    over.set()
    thread.join()
    print(json.dumps(times_ms), flush=True)


if __name__ == "__main__":
    main()
