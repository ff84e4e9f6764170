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

from benchmarks.fleet.kills import kills
from benchmarks.fleet.processes import Mistake
from tests.support.postgres import Server

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--record", action="store_true", help="append the figures to benchmarks/fleet/results.json")
    parser.add_argument("--folder", type=Path, help="keep the processes' folders here")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    part = parts.add_parser("kills", help="kill -9 of a random worker, gateway or PostgreSQL under mixed traffic")
    part.add_argument("--rounds", type=int, default=200)
    part.add_argument("--minutes", type=float, default=60.0)
    part.add_argument("--seed", type=int, default=1)
    part.set_defaults(
        run=lambda a, folder, server: kills(folder, server, rounds=a.rounds, minutes=a.minutes, seed=a.seed)
    )
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
    run: Callable[[argparse.Namespace, Path, Server], dict[str, Any]] = arguments.run
    try:
        found = run(arguments, folder, server)
    except Mistake as mistake:
        found = {"mistakes": [str(mistake)]}
    result = {
        "command": " ".join(word for word in sys.argv[1:] if word != "--record"),
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
