"""An image by the engine and by mflux alone, in alternation: python -m benchmarks.steps [--model embedded] [--px 128]

Rows: a new prompt, a prompt seen before, and four images of one prompt. Both sides are processes with the engine's
environment. The engine is the child process as the gateway starts it, without the gateway; a model `klein` has the
geometry of FLUX.2 Klein, narrowed to a twelfth, with random weights.

`--tried` prints what single changes of mflux and MLX gain on the embedded model, and whether pixels differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.catalog import CATALOG, EMBEDDED, EMBEDDED_PATH
from engine.client.environment import child_environment
from engine.client.options import EngineOptions
from engine.embedded.reading import read
from engine.embedded.style import style_numbers, with_style
from engine.embedded.words import COLOURS, SHAPES
from engine.protocol import Drawn, Generate, JobReport, Run, Succeeded, decode_report, encode
from tests.support.toys import Toy

SPECS = {spec.name: spec for spec in CATALOG}
KLEIN = "flux2-klein-4b"
NAMES = {"embedded": EMBEDDED, "klein": KLEIN}
STEPS = 4
PROMPT = "a red circle on a blue background"


def klein_parts() -> dict[str, Any]:
    """FLUX.2 Klein's layers, heads and tokens, a twelfth as wide."""
    from mflux.models.common.vae.block_decoder import VAEBlockDecoder
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
    from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer

    from engine.pipelines.flux2_tiny import TinyVAE

    shape = {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 2, "norm_num_groups": 32}
    vae = TinyVAE({**shape, "mid_block_add_attention": True})
    vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
    transformer = {"num_attention_heads": 2, "joint_attention_dim": 3 * 192}
    text = {"vocab_size": 320, "hidden_size": 192, "num_attention_heads": 4, "num_key_value_heads": 1}
    return {
        "vae": vae,
        "transformer": Flux2Transformer(**transformer),
        "text_encoder": Qwen3TextEncoder(**text, head_dim=64, intermediate_size=768),
    }


def klein() -> Toy:
    from tests.engine.test_engine_toys import TOYS

    return replace(TOYS[KLEIN], parts=klein_parts)


@contextmanager
def in_place(model: str) -> Iterator[None]:
    """mflux builds the model at its width."""
    with ExitStack() as stack:
        if model == "klein":
            stack.enter_context(klein().in_place())
        yield


def engine_side(model: str) -> None:
    """The engine's child process."""
    from engine import __main__ as engine

    sys.argv = ["engine", "--backend", "mlx"]
    with in_place(model):
        engine.main()


def bare_side(model: str, folder: str) -> None:
    """mflux alone: a line of JSON with the arguments of `generate_image` for each image."""
    import mlx.core as mx
    from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
    from mflux.models.flux2 import Flux2Klein

    from engine.pipelines import flux2_tiny

    ModelConfig.precision = mx.float32
    with in_place(model):
        if model == "embedded":
            pipeline = flux2_tiny.build(Path(folder))
        else:
            pipeline = Flux2Klein(model_path=folder, model_config=AVAILABLE_MODELS[KLEIN])
        print("ready", flush=True)
        for line in sys.stdin:
            made = pipeline.generate_image(**json.loads(line))
            Path(os.environ["PIXELS"]).write_bytes(made.image.convert("RGB").tobytes())
            print("done", flush=True)


class Side(ABC):
    """A process that draws."""

    def __init__(self, side: str, model: str, folder: Path, spool: Path) -> None:
        self.model, self.folder, self.spool, self._jobs = model, folder, spool, 0
        self._pixels = spool / "bare.rgb"
        environment = {**child_environment(EngineOptions(), os.environ), "PIXELS": str(self._pixels)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.steps", "--model", model, "--side", side, "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._line()

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended with {self.process.wait()}")
        return line

    @abstractmethod
    def draw(self, prompt: str, seeds: tuple[int, ...], px: int) -> tuple[float, list[bytes]]:
        """Seconds, and the pixels of each image."""

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Bare(Side):
    def draw(self, prompt: str, seeds: tuple[int, ...], px: int) -> tuple[float, list[bytes]]:
        began, images = time.perf_counter(), []
        for seed in seeds:
            text = with_style(read(prompt, 0).text, style_numbers(seed)) if self.model == "embedded" else prompt
            asked = {"seed": seed, "prompt": text, "num_inference_steps": STEPS, "width": px, "height": px}
            self._send(json.dumps({**asked, "guidance": 1.0}).encode() + b"\n")
            self._line()
            images.append(self._pixels.read_bytes())
        return time.perf_counter() - began, images


class Engine(Side):
    def draw(self, prompt: str, seeds: tuple[int, ...], px: int) -> tuple[float, list[bytes]]:
        began, self._jobs, files = time.perf_counter(), self._jobs + 1, []
        spec = SPECS[NAMES[self.model]].model_copy(update={"native_px": None})
        form: dict[str, Any] = {"width_px": px, "height_px": px, "steps": STEPS, "guidance": 1.0, "seeds": seeds}
        plan = Generate(model=spec.name, prompt=prompt, **form)
        place: dict[str, Any] = {"model_path": str(self.folder), "spool_dir": str(self.spool)}
        self._send(encode(Run(job=f"j{self._jobs}", attempt=1, plan=plan, spec=spec, decode_beside=True, **place)))
        while True:
            match decode_report(self._line()):
                case JobReport(fact=Drawn(spool=spool)):
                    files.append(self.spool / spool)
                case JobReport(fact=Succeeded()):
                    break
                case JobReport(fact=fact) if fact.kind in ("failed", "cancelled"):
                    raise SystemExit(str(fact))
        seconds = time.perf_counter() - began
        return seconds, [file.read_bytes().split(b"\n", 3)[3] for file in files]


def compare(model: str, px: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        folder, spool = EMBEDDED_PATH, home / "spool"
        spool.mkdir()
        if model == "klein":
            folder = home / "model"
            with in_place(model):
                klein().save(folder)
        sides: list[Side] = [kind(side, model, folder, spool) for side, kind in (("bare", Bare), ("engine", Engine))]
        try:
            for title, count, is_new in (("new prompt", 1, True), ("prompt seen", 1, False), ("four images", 4, False)):
                row(title, sides, px, count, rounds if count == 1 else max(2, rounds // 2), is_new=is_new)
        finally:
            for side in sides:
                side.close()


def row(title: str, sides: list[Side], px: int, count: int, rounds: int, *, is_new: bool) -> None:
    for side in sides:
        side.draw(PROMPT, tuple(range(1, count + 1)), px)
    times: list[list[float]] = [[], []]
    for number in range(rounds):
        seeds = tuple(range(1, count + 1))
        prompt = f"a {COLOURS[number % len(COLOURS)]} {SHAPES[number % len(SHAPES)]}" if is_new else PROMPT
        order = [0, 1] if number % 2 == 0 else [1, 0]
        images = {}
        for at in order:
            seconds, images[at] = sides[at].draw(prompt, seeds, px)
            times[at].append(seconds)
        assert images[0] == images[1], "the engine drew other pixels than mflux alone"
    ratios = [engine / bare for bare, engine in zip(*times, strict=True)]
    bare, engine = map(statistics.median, times)
    print(f"{px:4} px  {title:12} bare {bare:6.3f} s  engine {engine:6.3f} s", end="")
    print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=NAMES, default="embedded")
    parser.add_argument("--px", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tried", action="store_true")
    parser.add_argument("--side", choices=("bare", "engine"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side == "engine":
        engine_side(asked.model)
    elif asked.side == "bare":
        bare_side(asked.model, asked.folder)
    elif asked.tried:
        command = [sys.executable, "-m", "benchmarks.tried_steps", "--rounds", str(asked.rounds)]
        environment = child_environment(EngineOptions(), os.environ)
        sys.exit(subprocess.run([*command, "--px", *map(str, asked.px)], env=environment, check=False).returncode)
    else:
        for px in asked.px:
            compare(asked.model, px, asked.rounds)


if __name__ == "__main__":
    main()
