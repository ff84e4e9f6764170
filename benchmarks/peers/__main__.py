"""python -m benchmarks.peers --home FOLDER [--quick] [--parts starts,singles] [--results FILE] [--only NAME,NAME]

Prepares the servers' environments and the checkpoint where they are not there yet, measures, and prints the table.
With --results the samples are kept in a file, and the table is of all that it has: a long run in several parts. What
each server wrote in the last run is in the folder, as NAME.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from benchmarks.peers import measures
from benchmarks.peers.bare import Bare
from benchmarks.peers.bench import Bench, differences
from benchmarks.peers.checkpoint import checkpoint_in
from benchmarks.peers.environments import Unavailable, prepare
from benchmarks.peers.mfluxible import Mfluxible
from benchmarks.peers.mlx_openai import MlxOpenaiServer
from benchmarks.peers.ours import MfluxGateway
from benchmarks.peers.servers import Program, Server
from benchmarks.peers.table import Sample, shortfalls, table
from benchmarks.peers.webui_uno import MfluxWebuiUno

PROGRAMS: tuple[Callable[[], Program], ...] = (MfluxGateway, Mfluxible, MfluxWebuiUno, MlxOpenaiServer)
OURS = MfluxGateway.name
FULL = {"starts": 2, "singles": 4, "ends": 2, "batches": 2, "crowds": 3, "memory": 1}
QUICK = dict.fromkeys(FULL, 1)
"""Rounds of each part, in their order."""


def servers(home: Path, scratch: Path, checkpoint: Path, only: set[str]) -> tuple[list[Server], list[str]]:
    """Those that can run here, and sentences about the others."""
    ready, notes = [], []
    for program in (make() for make in PROGRAMS):
        if only and program.name not in only | {OURS}:
            continue
        try:
            python = Path(sys.executable) if program.install is None else prepare(home, program.name, program.install)
        except Unavailable as reason:
            notes.append(str(reason))
        else:
            ready.append(Server(program, python, scratch, checkpoint))
    return ready, notes


def parts(bench: Bench, rounds: dict[str, int], each: int) -> Iterator[Sample]:
    measure: dict[str, Callable[[Bench, int], Iterator[Sample]]] = {
        "starts": measures.starts,
        "singles": measures.singles,
        "batches": measures.batches,
        "crowds": partial(measures.crowds, each=each),
        "memory": measures.memory,
        "ends": measures.ends,
    }
    for name, count in rounds.items():
        began = time.monotonic()
        yield from measure[name](bench, count)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def samples_in(file: Path | None) -> list[Sample]:
    if file is None or not file.exists():
        return []
    return [Sample(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def report(samples: list[Sample], names: list[str]) -> str:
    known = [name for name in names if any(sample.contender == name for sample in samples)]
    lines = [table(samples, known, OURS, Bare.name), "", *shortfalls(samples, known, OURS, Bare.name)]
    return "\n".join(lines)


def end(*_: object) -> NoReturn:
    raise SystemExit("stopped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where environments and checkpoint are kept")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: four minutes in place of twelve")
    parser.add_argument("--parts", help=f"of {','.join(FULL)}; all where it is not given")
    parser.add_argument("--only", default="", metavar="NAMES", help="of the peers")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines that samples are added to")
    parser.add_argument("--each", type=int, default=1, help="images of each of the four clients")
    parser.add_argument("--minutes", type=float, default=12, help="after which each part has one round only")
    args = parser.parse_args()
    rounds = QUICK if args.quick else FULL
    if args.parts:
        if unknown := set(args.parts.split(",")) - FULL.keys():
            parser.error(f"no such part: {', '.join(sorted(unknown))}")
        rounds = {name: count for name, count in rounds.items() if name in args.parts.split(",")}
    signal.signal(signal.SIGTERM, end)
    home = args.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    samples = samples_in(args.results)
    first = 1 + max((sample.round for sample in samples), default=-1)
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=home))
    checkpoint = checkpoint_in(home)
    ready, notes = servers(home, scratch, checkpoint, set(filter(None, args.only.split(","))))
    bench = Bench(Bare(scratch, checkpoint), [*ready], time.monotonic() + args.minutes * 60, notes)
    try:
        for sample in parts(bench, rounds, args.each):
            samples.append(sample := replace(sample, round=first + sample.round))
            print(f"  {sample.contender}: {sample.key} {sample.value:.2f}", file=sys.stderr, flush=True)
            if args.results is not None:
                with args.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(vars(sample)) + "\n")
        for name, levels in differences(bench.images, Bare.name).items():
            notes.append(f"{name} draws the pixels of bare mflux, to {levels} of 255.")
    finally:
        bench.stop_all()
        for name in (server.name for server in ready):
            with contextlib.suppress(OSError):
                shutil.copyfile(scratch / f"{name}.txt", home / f"{name}.txt")
        shutil.rmtree(scratch, ignore_errors=True)
        print(report(samples, [Bare.name, *(make().name for make in PROGRAMS)]))
        print("\n".join(notes))


if __name__ == "__main__":
    main()
