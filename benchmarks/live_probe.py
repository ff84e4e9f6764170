"""Probe of /health/live: python -m benchmarks.live_probe URL. For each line of input it prints the slowest new answer.

It is a process of its own, so that a benchmark with large bodies does not delay the measurement.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Self

import httpx

EVERY_S = 0.005


class LiveProbe:
    """Context manager that requests /health/live every few milliseconds from another process."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.live_probe", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def slowest_s(self) -> float:
        """Slowest answer since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        self.slowest_s()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


def main() -> None:
    slowest_s = [0.0]
    asks, over = threading.Lock(), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=sys.argv[1], timeout=60, verify=False) as client:
            while not over.wait(EVERY_S):
                with asks:
                    began = time.perf_counter()
                    client.get("/health/live").raise_for_status()
                    slowest_s[0] = max(slowest_s[0], time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in sys.stdin:
        with asks:
            print(slowest_s[0], flush=True)
            slowest_s[0] = 0.0
    over.set()
    thread.join()


if __name__ == "__main__":
    main()
