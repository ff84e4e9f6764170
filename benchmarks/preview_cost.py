"""Cost of a preview relative to a step: python -m benchmarks.preview_cost [--px 512]

Previews of the embedded model beside its own steps, through the engine's backend. Previews of FLUX.2 Klein at its real
widths with random weights: the decoding of a preview, at the size that follows from the first one, beside one step, of
which one block of each kind is timed and multiplied by their number. On a CPU both are bound by matrix products, as on
a GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.client.environment import child_environment
from engine.client.options import EngineOptions
from engine.protocol import PromptRead

ROUNDS = 5
STEPS = 8
TEXT_TOKENS = 512
INSIDE = "INSIDE"


@dataclass(slots=True)
class Times:
    """Watcher of the backend that measures the seconds of steps and of the previews after each."""

    steps: list[float] = field(default_factory=list)
    previews: list[float] = field(default_factory=list)

    def report_prompt(self, prompt: PromptRead) -> None: ...

    def check(self) -> None: ...

    def start_decoding(self) -> None: ...

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.steps.append(seconds)
        began = time.perf_counter()
        preview()
        self.previews.append(time.perf_counter() - began)


def embedded() -> Times:
    """Times of `ROUNDS` images, after one that loads the model."""
    from engine.backends.mlx import MlxBackend
    from engine.catalog import CATALOG, EMBEDDED, EMBEDDED_PATH
    from engine.drawing.base import Model
    from engine.protocol import Generate

    spec = next(spec for spec in CATALOG if spec.name == EMBEDDED)
    backend, times = MlxBackend(), Times()
    backend.load(Model(spec, str(EMBEDDED_PATH), None))
    plan = Generate(
        model=EMBEDDED,
        prompt="a red star on white",
        width_px=128,
        height_px=128,
        steps=STEPS,
        guidance=1.0,
        seeds=(1,),
    )
    for number in range(ROUNDS + 1):
        backend.draw(spec, plan, 0, {}, times if number else Times())
    return times


def klein(px: int) -> tuple[float, float, int]:
    """Seconds of one step of FLUX.2 Klein 4B at `px` square, and of one preview, and its pixels, in float32."""
    import mlx.core as mx
    from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
    from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
    from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE

    from engine.pipelines.common.latents import shrink_latents
    from engine.pipelines.common.preview_size import PreviewSize

    ModelConfig.precision = mx.float32
    config: dict[str, Any] = AVAILABLE_MODELS["flux2-klein-4b"].transformer_overrides
    rows = px // 16

    def timed(made: Callable[[], mx.array]) -> float:
        began = time.perf_counter()
        mx.eval(made())
        return time.perf_counter() - began

    def step(doubles: int, singles: int) -> float:
        model = Flux2Transformer(**{**config, "num_layers": doubles, "num_single_layers": singles})
        mx.eval(model.parameters())
        image = mx.random.normal((1, rows * rows, 128))
        text = mx.random.normal((1, TEXT_TOKENS, config["joint_attention_dim"]))
        image_ids, text_ids = mx.zeros((1, rows * rows, 4)), mx.zeros((1, TEXT_TOKENS, 4))
        return timed(lambda: model(image, text, mx.array([500.0]), image_ids, text_ids))

    one = step(1, 1)
    double, single = step(2, 1) - one, step(1, 2) - one
    vae = Flux2VAE()
    mx.eval(vae.parameters())
    latents = mx.random.normal((1, 32, px // 8, px // 8))
    whole = one + (config["num_layers"] - 1) * double + (config["num_single_layers"] - 1) * single
    size = PreviewSize()
    size.learn(timed(lambda: vae.decode(shrink_latents(latents, size.px))), whole)
    return whole, timed(lambda: vae.decode(shrink_latents(latents, size.px))), size.px


def shares(px: int) -> Iterator[tuple[str, float, float]]:
    times = embedded()
    yield "flux2-tiny, 128x128", statistics.median(times.steps), statistics.median(times.previews)
    step, preview, small_px = klein(px)
    yield f"flux2-klein-4b, {px}x{px}, preview of {small_px}", step, preview


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, default=512)
    px = parser.parse_args().px
    if INSIDE not in os.environ:  # in the engine's environment
        environment = child_environment(EngineOptions(backend="mlx"), os.environ)
        command = [sys.executable, "-m", "benchmarks.preview_cost", *sys.argv[1:]]
        raise SystemExit(subprocess.call(command, env={**environment, INSIDE: "1"}))
    for name, step, preview in shares(px):
        print(f"{name:44} step {step:8.3f} s, preview {preview:7.4f} s: {preview / step:6.1%} of a step", flush=True)


if __name__ == "__main__":
    main()
