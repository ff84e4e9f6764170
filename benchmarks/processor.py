"""Processor time of a request: python -m benchmarks.processor [--requests N] [--steps N] [--against FOLDER] [--drawn N]

What the gateway and its engine process use for one image by /v1/images/generations, with the fake engine, which draws
nothing: all of it is overhead. Unlike times by the clock it hardly depends on other work on the machine. With another
checkout of the project both take turns. --drawn compares with mflux alone: so many images of the embedded model,
128x128 in 16 steps, in alternation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil

from benchmarks.overhead import Bare, serving, through_http
from tests.support.live import ROOT, Live

TURN = 10
"""Requests before the other checkout's turn."""
STEP_S = 0.003
PAUSE_S = 0.03
"""Between two requests, so that what belongs to the one before is over."""


def used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Side:
    """A gateway of one checkout, and what it has used in each turn, in milliseconds a request."""

    def __init__(self, folder: Path, root: Path, stack: ExitStack) -> None:
        folder.mkdir()
        script = {"step_seconds": STEP_S}
        gateway = Live(
            folder, backend="fake", fake_script=script, config={"models": {"steps_as_sent": True}}, root=root
        )
        gateway.start()
        stack.callback(gateway.stop)
        self.name = root.name
        self._client = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60))
        assert gateway.process is not None
        self._gateway = psutil.Process(gateway.process.pid)
        children = self._gateway.children(recursive=True)
        self._engine = next(child for child in children if "engine" in child.cmdline())
        self.gateway_ms: list[float] = []
        self.engine_ms: list[float] = []

    def turn(self, steps: int) -> None:
        before = used_s(self._gateway), used_s(self._engine)
        for seed in range(TURN):
            body = {"prompt": "x", "seed": seed, "size": "128x128", "steps": steps, "response_format": "b64_json"}
            self._client.post("/v1/images/generations", json=body).raise_for_status()
            time.sleep(PAUSE_S)
        self.gateway_ms.append((used_s(self._gateway) - before[0]) * 1000 / TURN)
        self.engine_ms.append((used_s(self._engine) - before[1]) * 1000 / TURN)


def drawn(folder: Path, count: int) -> None:
    """Milliseconds of processor for an image by mflux alone, and by the engine and the gateway."""
    bare, gateway = Bare(folder), serving(folder)
    assert gateway.process is not None
    served = psutil.Process(gateway.process.pid)
    try:
        with httpx.Client(base_url=gateway.url, timeout=120) as client:
            for seed in (1, 2):
                bare.draw(seed)
                through_http(client, seed)
            engine = next(child for child in served.children(recursive=True) if "engine" in child.cmdline())
            sides = (psutil.Process(bare.process.pid), engine, served)
            totals_s = [0.0, 0.0, 0.0]
            for seed in range(10, 10 + count):
                before = [used_s(side) for side in sides]
                bare.draw(seed)
                through_http(client, seed)
                time.sleep(0.1)  # what is done after the answer is counted too
                for number, side in enumerate(sides):
                    totals_s[number] += used_s(side) - before[number]
    finally:
        bare.close()
        gateway.stop()
    alone, by_engine, by_gateway = (1000 * total_s / count for total_s in totals_s)
    print(
        f"an image: mflux alone {alone:.0f} ms, the engine {by_engine:.0f} ms, the gateway {by_gateway:.0f} ms;", end=""
    )
    print(f" the engine {100 * (by_engine / alone - 1):+.1f} %, with the gateway", end="")
    print(f" {100 * ((by_engine + by_gateway) / alone - 1):+.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=150, help="of each checkout")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of the project")
    parser.add_argument("--drawn", type=int, metavar="IMAGES", help="compare with mflux alone instead")
    args = parser.parse_args()
    if args.drawn:
        with tempfile.TemporaryDirectory() as name:
            return drawn(Path(name), args.drawn)
    roots = [ROOT, *([] if args.against is None else [args.against.resolve()])]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sides = [Side(Path(name) / str(number), root, stack) for number, root in enumerate(roots)]
        for side in sides:
            side.turn(args.steps)
            side.gateway_ms.clear()
            side.engine_ms.clear()
        for _ in range(max(1, args.requests // TURN)):
            for side in sides:
                side.turn(args.steps)
        for side in sides:
            gateway_ms, engine_ms = statistics.median(side.gateway_ms), statistics.median(side.engine_ms)
            print(
                f"{side.name}: gateway {gateway_ms:.1f} ms, engine {engine_ms:.1f} ms a request of {args.steps} steps"
            )
        if len(sides) == 2:
            pairs = zip(sides[0].gateway_ms, sides[1].gateway_ms, strict=True)
            print(f"gateway, ratio of turns: {statistics.median(one / other for one, other in pairs):.2f}")


if __name__ == "__main__":
    main()
