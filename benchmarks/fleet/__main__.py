"""python -m benchmarks.fleet PART [options]: proves what a fleet of gateways and workers promises, or measures it.

Each part starts PostgreSQL on a Unix socket and its own processes with the fake engine, prints its figures as JSON, and
exits with 1 where what it proves does not hold. --record appends them to benchmarks/fleet/results.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.fleet.faults import database_gone, partition, stopped
from benchmarks.fleet.kills import kills
from benchmarks.fleet.locks import claims, lock
from benchmarks.fleet.places import clocks, files_gone
from benchmarks.fleet.processes import Mistake
from benchmarks.fleet.speed import cancel, dispatch, throughput
from benchmarks.fleet.streams import streams
from tests.support.postgres import Server

RESULTS = Path(__file__).parent / "results.json"


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], str, dict[str, Any]]] = {
    "kills": (kills, "kill -9 under mixed traffic", {"rounds": 200, "minutes": 60.0, "seed": 1}),
    "stopped": (stopped, "SIGSTOP of a worker past its lease, and SIGCONT", {"rounds": 6}),
    "partition": (partition, "a worker that is cut off from the database", {"rounds": 6}),
    "database-gone": (database_gone, "PostgreSQL is away under traffic", {"seconds": 60.0}),
    "files-gone": (files_gone, "the bucket of images is away", {"seconds": 20.0, "state": "closed"}),
    "clocks": (clocks, "clocks an hour apart", {"jobs": 6}),
    "dispatch": (dispatch, "submit on one gateway to start on an idle worker", {"jobs": 100, "rounds": 5}),
    "cancel": (cancel, "cancel from another gateway", {"jobs": 40, "step_s": 0.2}),
    "throughput": (throughput, "fixed work by 1, 2 and 4 workers", {"jobs": 24, "steps": 20, "step_s": 0.1}),
    "claims": (claims, "claim at 10,000 waiting against 100", {"many": 10_000, "few": 100, "times": 40}),
    "streams": (streams, "event streams over kills", {"jobs": 12}),
    "lock": (lock, "writes through the lock of the store", {"seconds": 5.0}),
}
"""What runs each part, what it shows, and its options with their defaults."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/fleet/results.json")
    parser.add_argument("--folder", type=Path, help="keep the processes' folders here")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, (run, about, defaults) in PARTS.items():
        part = parts.add_parser(name, help=about)
        for option, value in defaults.items():
            part.add_argument(f"--{option.replace('_', '-')}", type=type(value), default=value, help=f"({value})")
        part.set_defaults(run=run, options=list(defaults))
    arguments = parser.parse_args()
    try:
        server = Server()
    except pytest.skip.Exception as reason:
        print(reason, file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _report(arguments, arguments.folder or Path(scratch), server)
    finally:
        server.remove()


def _report(arguments: argparse.Namespace, folder: Path, server: Server) -> int:
    run: Callable[..., dict[str, Any]] = arguments.run
    try:
        found = run(folder, server, **{name: getattr(arguments, name) for name in arguments.options})
    except Mistake as mistake:
        found = {"mistakes": [str(mistake)]}
    result = {
        "command": " ".join([arguments.part, *(f"--{name} {getattr(arguments, name)}" for name in arguments.options)]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}",
        **found,
    }
    print(json.dumps(result, indent=2))
    if arguments.record:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*known, result], indent=2) + "\n")
    holds = not found.get("mistakes")
    print("holds" if holds else "does NOT hold", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
