"""Speed and memory of the embedded model: python -m benchmarks.embedded_speed"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

from tests.support.live import Live

BODY = {"model": "flux2-tiny", "prompt": "a red circle on a blue background", "size": "128x128", "steps": 4}


def engine_of(gateway: Live) -> psutil.Process:
    assert gateway.process is not None
    return max(psutil.Process(gateway.process.pid).children(), key=lambda child: child.memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        gateway = Live(Path(folder), backend="mlx").start()
        peak, done = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, engine_of(gateway).memory_info().rss)

        try:
            with httpx.Client(base_url=gateway.url, timeout=120) as client:
                began = time.perf_counter()
                client.post("/v1/images/generations", json=BODY).raise_for_status()
                print(f"first picture, model loaded for it: {time.perf_counter() - began:.2f} s")
                watcher = threading.Thread(target=watch)
                watcher.start()
                times = []
                for _ in range(rounds):
                    began = time.perf_counter()
                    client.post("/v1/images/generations", json=BODY).raise_for_status()
                    times.append(time.perf_counter() - began)
                done.set()
                watcher.join()
            print(f"128x128, 4 steps, warm, through HTTP: median {statistics.median(times):.2f} s of {rounds}")
            print(f"engine process: {peak / 2**20:.0f} MB RSS at most")
        finally:
            done.set()
            gateway.stop()


if __name__ == "__main__":
    main()
