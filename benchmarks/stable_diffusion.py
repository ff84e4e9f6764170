"""Seconds and peak memory of Stable Diffusion 1's networks beside mlx-examples and diffusers, in alternation.

git clone https://github.com/ml-explore/mlx-examples ~/mlx-examples

uv run python -m benchmarks.stable_diffusion --mlx-examples ~/mlx-examples/stable_diffusion (narrow, about two minutes)

... --width real --px 512 --rounds 3 --steps 2 (SD 1.5's sizes: 5 GB, and on two cores some minutes a round)

... --diffusers ~/torch/bin/python (a Python with torch, diffusers and transformers)

... --processor (processor time instead of time, for a machine that does other work meanwhile)

Random weights: nothing is downloaded. Each program is a process of its own, and they take turns: one works, the others
wait. `step` is one evaluation of the UNet for a prompt and a negative one, `decode` one of the VAE in float32, `image`
both texts, Euler's steps and the decoding. Peaks are as MLX counts, without its cache; for diffusers, of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.stable_diffusion_sides import Sizes, as_argument
from engine.client.environment import child_environment
from engine.client.options import EngineOptions

ROOT = Path(__file__).parents[1]
WIDTHS = {
    "narrow": Sizes((64, 128, 256, 256), 192, (32, 64, 128, 128), 256, "float32"),
    "real": Sizes((320, 640, 1280, 1280), 768, (128, 256, 512, 512), 512, "float32"),
}
KINDS = ("text", "step", "decode", "image")
OURS = "ours"


@dataclass
class Contender:
    """A running program, and what it took, by kind."""

    name: str
    process: subprocess.Popen[str]
    parameters: int
    seconds: dict[str, list[float]]
    peaks: dict[str, list[int]]

    def measure(self, kind: str, steps: int, clock: str, *, kept: bool) -> None:
        """Let it work; `clock` is what counts of its answer, `seconds` or `processor`."""
        answer = self._ask({"kind": kind, "steps": steps})
        if kept:
            self.seconds[kind].append(answer[clock])
            self.peaks[kind].append(int(answer["peak"]))

    def _ask(self, order: dict[str, object]) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, float]:
        """The next answer. Raises: SystemExit where the program has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended with {self.process.wait()}; its last lines are above.")
        found: dict[str, float] = json.loads(line)
        return found


@contextmanager
def running(name: str, python: str, sizes: Sizes, path: Path | None) -> Iterator[Contender]:
    """A program with its networks in memory. All have the environment of the engine's process."""
    environment = {**child_environment(EngineOptions(), os.environ), "PYTHONPATH": str(path or ROOT)}
    script = str(ROOT / "benchmarks" / "stable_diffusion_sides.py")
    with subprocess.Popen(
        [python, "-P", script, name, as_argument(sizes)],  # -P: modules beside the script have names of packages
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        contender = Contender(name, process, 0, {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS})
        contender.parameters = int(contender.read()["parameters"])
        try:
            yield contender
        finally:
            process.kill()


def table(contenders: list[Contender]) -> str:
    """Medians, and ours to each other: the median of the ratios of the rounds."""
    ours = next(one for one in contenders if one.name == OURS)
    lines = [f"{'':8}" + "".join(f"{one.name:>30}" for one in contenders)]
    for kind in KINDS:
        cells = []
        for one in contenders:
            seconds, peak = statistics.median(one.seconds[kind]), max(one.peaks[kind]) / 1e6
            ratio = statistics.median(a / b for a, b in zip(ours.seconds[kind], one.seconds[kind], strict=True))
            more = "" if one is ours else f"  ours {ratio:.2f}x"
            cells.append(f"{f'{seconds:.3f} s {peak:,.0f} MB{more}':>30}")
        lines.append(f"{kind:8}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlx-examples", type=Path, help="folder stable_diffusion of ml-explore/mlx-examples")
    parser.add_argument("--diffusers", help="a Python with torch, diffusers and transformers")
    parser.add_argument("--width", choices=WIDTHS, default="narrow")
    parser.add_argument("--px", type=int, help="side of the image")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps of an image")
    parser.add_argument("--processor", action="store_true", help="count processor time")
    args = parser.parse_args()
    base = WIDTHS[args.width]
    clock = "processor" if args.processor else "seconds"
    sizes = replace(base, dtype=args.dtype, px=args.px or base.px)
    with ExitStack() as stack:
        contenders = [stack.enter_context(running(OURS, sys.executable, sizes, None))]
        if args.mlx_examples is not None:
            contenders.append(stack.enter_context(running("mlx-examples", sys.executable, sizes, args.mlx_examples)))
        if args.diffusers is not None:
            contenders.append(stack.enter_context(running("diffusers", args.diffusers, sizes, None)))
        if len({one.parameters for one in contenders}) != 1:
            raise SystemExit(f"Not the same networks: {[(one.name, one.parameters) for one in contenders]}")
        for number in range(args.rounds + 1):
            for kind in KINDS:
                turn = contenders if number % 2 == 0 else contenders[::-1]
                for contender in turn:
                    contender.measure(kind, args.steps, clock, kept=number > 0)
    print(f"{args.width}, {sizes.px} px, {sizes.dtype}, {args.rounds} rounds, {args.steps} steps an image, {clock}")
    print(table(contenders))


if __name__ == "__main__":
    main()
