"""Syncs to disk for each image, counted by strace on Linux: python -m benchmarks.syncs [--requests N] [--n COUNT]

Prints them by file, and what they take on a Mac, where each commit and each file waits for F_FULLFSYNC: the counts of
this run times the times that others measured on Apple's SSDs (`MACS`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.live import live

CALL = re.compile(r"\b(fsync|fdatasync)\(\d+<(?P<path>[^>]*)>")
WARM = 3
COMMIT, FILE, FOLDER = "commits", "image files", "their folder"


@dataclass(frozen=True, slots=True)
class Mac:
    """Milliseconds on one machine: `full_ms` of F_FULLFSYNC, `barrier_ms` of F_BARRIERFSYNC."""

    name: str
    full_ms: float
    barrier_ms: float


MACS = (Mac("M1", 18.1, 4.5), Mac("M4 Pro", 5.5, 1.4))
"""Sources: pg_test_fsync on an M1 (docker/for-mac issue 5236: 18.1 ms); 18 to 19 ms and, with a barrier, 4.5 ms on an
M1 Pro (go-ethereum issue 28754, cockroachdb/pebble pull request 1851); p99 5.5 ms on an M4 Pro (Wave-RF/WaveHouse issue
84). The barrier's time on an M4 is not known: the same share of F_FULLFSYNC is assumed.
"""


def kind_of(path: str) -> str:
    """What is synced, by its path."""
    if "jobs.sqlite3" in path:
        return COMMIT
    return FILE if path.endswith(".tmp") else FOLDER


def count_syncs(lines: Iterable[str]) -> Counter[str]:
    """Syncs by kind in strace's output with paths (-y)."""
    return Counter(kind_of(call["path"]) for line in lines if (call := CALL.search(line)))


def mac_ms(syncs: Counter[str], mac: Mac) -> float:
    """Milliseconds that these syncs take on a Mac: the formula of docs/decisions.md.

    A commit is one F_FULLFSYNC (PRAGMA fullfsync). A file is F_BARRIERFSYNC, then its folder F_FULLFSYNC.
    """
    return (syncs[COMMIT] + syncs[FOLDER]) * mac.full_ms + syncs[FILE] * mac.barrier_ms


def draw(client: httpx.Client, count: int, n: int) -> None:
    body = {"prompt": "a red circle", "n": n, "size": "64x64", "response_format": "b64_json"}
    for _ in range(count):
        client.post("/v1/images/generations", json=body).raise_for_status()


def trace(folder: Path, count: int, n: int) -> Counter[str]:
    """Syncs of `count` requests for `n` images each, by a gateway with the fake engine. Raises: CalledProcessError."""
    with live(folder) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        draw(client, WARM, n)
        assert gateway.process is not None
        output = folder / "strace.txt"
        words = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(output), "-p", str(gateway.process.pid)]
        tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        tracer.stderr.readline()  # it is attached
        time.sleep(0.5)
        draw(client, count, n)
        time.sleep(0.5)
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
        return count_syncs(output.read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--n", type=int, default=1, help="images of each request")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        raise SystemExit("strace is not installed")
    with tempfile.TemporaryDirectory() as name:
        syncs = trace(Path(name), options.requests, options.n)
    each = Counter({kind: syncs[kind] for kind in (COMMIT, FILE, FOLDER)})
    counts = ", ".join(f"{count / options.requests:.2f} {kind}" for kind, count in each.items())
    print(f"a request for {options.n}: {counts}")
    for mac in MACS:
        ms = mac_ms(each, mac) / options.requests
        print(f"on a Mac ({mac.name}, by calculation): {ms:.0f} ms a request, {ms / options.n:.0f} ms an image")


if __name__ == "__main__":
    main()
