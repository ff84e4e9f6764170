"""Start of the gateway: python -m benchmarks.start [--against FOLDER]

Seconds from the start of `python api_main.py` until /health/live answers, until /health/ready does, and until the first
image is there, which is requested as soon as /health/live answers; the same image by mflux alone in a fresh process;
the gateway's memory when it is ready. Medians and ranges of several rounds, in which all take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.overhead import PROMPT, SIZE_PX, STEPS, Bare
from tests.support.live import ROOT, free_port

POLL_S = 0.002
GIVE_UP_S = 120.0
BODY = {"prompt": PROMPT, "seed": 1, "size": f"{SIZE_PX}x{SIZE_PX}", "steps": STEPS, "response_format": "b64_json"}


@dataclass
class Times:
    """Seconds, and MB of 2**20 bytes, of one checkout: a value for each round."""

    live: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    image: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Started:
    """A gateway that was started at `began`, in seconds of `time.perf_counter`."""

    process: subprocess.Popen[bytes]
    port: int
    began: float

    def answer(self, path: str, body: object = None) -> int:
        """The status of a request; 0 while nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GIVE_UP_S)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            return response.status
        except ConnectionRefusedError:
            return 0
        finally:
            connection.close()

    def seconds_until(self, path: str) -> float:
        """Seconds from the start to the first 200."""
        while self.answer(path) != 200:
            if self.process.poll() is not None or time.perf_counter() - self.began > GIVE_UP_S:
                raise SystemExit("the gateway did not start")
            time.sleep(POLL_S)
        return time.perf_counter() - self.began


@contextlib.contextmanager
def started(root: Path, folder: Path) -> Iterator[Started]:
    """A gateway of the checkout `root`, in an empty folder, stopped in the end."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=folder) as home:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(root / "api_main.py"), "--port", str(port), "--model", "flux2-tiny"],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(root)},
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Started(process, port, began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(GIVE_UP_S)


def measure(root: Path, folder: Path, times: Times) -> None:
    """One round: a start that is only watched, and one whose first request is an image."""
    with started(root, folder) as gateway:
        times.live.append(gateway.seconds_until("/health/live"))
        times.ready.append(gateway.seconds_until("/health/ready"))
        times.rss.append(psutil.Process(gateway.process.pid).memory_info().rss / 2**20)
    with started(root, folder) as gateway:
        gateway.seconds_until("/health/live")
        status = gateway.answer("/v1/images/generations", BODY)
        assert status == 200, f"the first image was answered with {status}"
        times.image.append(time.perf_counter() - gateway.began)


def bare_image_s(folder: Path) -> float:
    """Seconds from the start of a process to its first image by mflux alone."""
    began = time.perf_counter()
    bare = Bare(folder)
    bare.draw(1)
    seconds = time.perf_counter() - began
    bare.close()
    return seconds


def row(name: str, values: list[float], unit: str, digits: int) -> str:
    lowest, middle, highest = min(values), statistics.median(values), max(values)
    return f"  {name:<28}{middle:7.{digits}f} {unit} ({lowest:.{digits}f} to {highest:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, to compare with")
    args = parser.parse_args()
    roots = [ROOT, *([] if args.against is None else [args.against.resolve()])]
    times = {root: Times() for root in roots}
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for root in roots:  # the first start of each writes and reads what the others find
            measure(root, folder, Times())
        for _ in range(args.rounds):
            bare.append(bare_image_s(folder))
            for root in roots:
                measure(root, folder, times[root])
    print(row("mflux alone, first image", bare, "s", 2))
    for root in roots:
        mine = times[root]
        print(f"{root.name}, {args.rounds} rounds")
        print(row("/health/live", mine.live, "s", 3))
        print(row("/health/ready", mine.ready, "s", 2))
        print(row("first image", mine.image, "s", 2))
        print(row("beyond mflux alone", [a - b for a, b in zip(mine.image, bare, strict=True)], "s", 2))
        print(row("memory when ready", mine.rss, "MB", 0))
        if root != ROOT:
            ours = times[ROOT]
            for what in ("live", "ready", "image", "rss"):
                ratios = [a / b for a, b in zip(getattr(ours, what), getattr(mine, what), strict=True)]
                print(row(f"{ROOT.name} / {root.name}, {what}", ratios, "", 2))


if __name__ == "__main__":
    main()
