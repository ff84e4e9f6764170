"""Pixels of a GPU against those of the CPU: a part of benchmarks/gpu.py.

The embedded model and toys of other families, with the same weights, are drawn by the engine's backend in three
processes: on the CPU; on the GPU in float32 without TF32, where only the order of sums differs; and on the GPU as the
engine draws. `python -m benchmarks.gpu_pixels DEVICE PRECISION FOLDER` is one of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.gpu_report import Row
from benchmarks.gpu_setup import Emit, Lacking, Setup
from engine.catalog import EMBEDDED, EMBEDDED_PATH
from engine.client.environment import OPENBLAS, has_openblas
from tests.support import toys, toys_pictures
from tests.support.engine import SPECS
from tests.support.toys import Toy

PART = "pixels"
SIZE_PX = 64
STEPS = 3
EMBEDDED_PX = 128
EXACT_MOST = 2
"""Of 255: the largest difference of a channel in float32, where sums are added in another order."""
ROUNDING_FACTOR = 2.0
"""bfloat16 on the GPU may be this many times as far from float32 as bfloat16 on the CPU is, in the mean."""
ROUNDING_SLACK = 0.5
"""Of 255: what is added to that."""
TOY_NAMES = ("flux2-klein-4b", "flux1-dev", "qwen-image", "z-image")
TOYS = {toy.name: toy for toy in (*toys.TOYS, *toys_pictures.TOYS) if toy.name in TOY_NAMES}
TILE_PX = 128
PRECISIONS, BOTH = ("float32", "bfloat16"), "both"


@dataclass(frozen=True, slots=True)
class Case:
    """A model and the bits that it is quantised to at load."""

    model: str
    bits: int | None = None

    @property
    def name(self) -> str:
        return self.model if self.bits is None else f"{self.model}-{self.bits}-bit"


CASES = (Case(EMBEDDED), *map(Case, TOY_NAMES), Case(TOY_NAMES[0], 8), Case(TOY_NAMES[0], 4))


def run(setup: Setup, emit: Emit) -> None:
    """Draw everywhere and compare. Raises: Lacking, CalledProcessError."""
    folder = setup.work / "pixels"
    folder.mkdir(parents=True, exist_ok=True)
    gpu = "cpu" if setup.tiny else "gpu"
    uncompiled = {"MLX_DISABLE_COMPILE": "1"}  # each kernel would take seconds to compile
    reference = draw(setup, folder, "cpu", BOTH, **uncompiled, **({"LD_PRELOAD": OPENBLAS} if has_openblas() else {}))
    exact = draw(setup, folder, gpu, PRECISIONS[0], MLX_ENABLE_TF32="0", **uncompiled)
    for row in exact_rows(reference, exact):
        emit(row)
    rounded = draw(setup, folder, gpu, PRECISIONS[1])
    for row in rounded_rows(reference, rounded):
        emit(row)
    sheet(reference, exact, rounded).save(setup.out / "pixels.png")


def draw(setup: Setup, folder: Path, device: str, precision: str, **variables: str) -> dict[str, Any]:
    """Images of all cases, by name, from a process; `variables` are added to its environment."""
    words = [sys.executable, "-m", "benchmarks.gpu_pixels", device, precision, str(folder)]
    subprocess.run(words, env=setup.environment(**variables), stdout=sys.stderr, check=True)
    return dict(np.load(file_of(folder, device, precision)))


def file_of(folder: Path, device: str, precision: str) -> Path:
    return folder / f"{device}-{precision}.npz"


def exact_rows(reference: dict[str, Any], exact: dict[str, Any]) -> Iterator[Row]:
    """Rows of arrays (height, width, 3) of uint8 by name, the CPU's by precision too. Raises: Lacking for an image of
    one colour, which would say nothing.
    """
    for case in CASES:
        plain = reference[f"{case.name} float32"]
        if plain.std() < 1:
            raise Lacking(f"{case.name} draws one colour only")
        most, mean = difference(plain, exact[case.name])
        yield Row(PART, f"{case.name}, float32: largest difference from the CPU", most, "of 255", EXACT_MOST)
        yield Row(PART, f"{case.name}, float32: mean difference", mean, "of 255")


def rounded_rows(reference: dict[str, Any], rounded: dict[str, Any]) -> Iterator[Row]:
    """As `exact_rows`, for the GPU as the engine draws."""
    for case in CASES:
        plain, coarse = (reference[f"{case.name} {precision}"] for precision in PRECISIONS)
        _, usual = difference(plain, coarse)
        most, mean = difference(plain, rounded[case.name])
        goal = ROUNDING_FACTOR * usual + ROUNDING_SLACK
        yield Row(PART, f"{case.name}, as the engine draws: mean difference from float32", mean, "of 255", goal)
        yield Row(PART, f"{case.name}, as the engine draws: largest difference", most, "of 255")


def difference(one: Any, other: Any) -> tuple[float, float]:
    """Largest and mean difference of a channel; 255 for images of different sizes."""
    if one.shape != other.shape:
        return 255.0, 255.0
    off = np.abs(one.astype(int) - other.astype(int))
    return float(off.max()), float(off.mean())


def sheet(reference: dict[str, Any], exact: dict[str, Any], rounded: dict[str, Any]) -> Image.Image:
    """A line for each case: CPU, GPU in float32, GPU as the engine draws, 32 times the difference of the first two."""
    image = Image.new("RGB", (4 * TILE_PX, len(CASES) * TILE_PX))
    for line, case in enumerate(CASES):
        plain = reference[f"{case.name} float32"]
        off = np.abs(plain.astype(int) - exact[case.name].astype(int))
        tiles = (plain, exact[case.name], rounded[case.name], np.minimum(255, 32 * off).astype(np.uint8))
        for column, tile in enumerate(tiles):
            small = Image.fromarray(tile).resize((TILE_PX, TILE_PX), Image.Resampling.NEAREST)
            image.paste(small, (column * TILE_PX, line * TILE_PX))
    return image


# ---- the process that draws ----------------------------------------------------------------------


def images(folder: Path, precision: str) -> Iterator[tuple[str, Any]]:
    """Name and pixels of each case, by the engine's backend on MLX's default device."""
    import mlx.core as mx
    from mflux.models.common.config.model_config import ModelConfig

    from engine.pipelines.flux2_tiny import NATIVE_STEPS
    from tests.support.engine_studio import Studio

    for case in CASES:
        toy, spec = TOYS.get(case.model), SPECS[case.model]
        path, size = (EMBEDDED_PATH, EMBEDDED_PX) if toy is None else (weights_of(toy, folder), SIZE_PX)
        studio = Studio(spec, path, inputs={}, width_px=size, height_px=size)
        ModelConfig.precision = getattr(mx, precision)
        steps = NATIVE_STEPS if toy is None else max(STEPS, spec.min_steps)
        with in_place(toy):
            studio.load(quantize=case.bits)
            yield case.name, np.asarray(studio.draw(steps=steps))


def weights_of(toy: Toy, folder: Path) -> Path:
    """Folder of the toy's weights, which the first process saves."""
    place = folder / toy.name
    if not place.exists():
        with toy.in_place():
            toy.save(place)
    return place


@contextmanager
def in_place(toy: Toy | None) -> Iterator[None]:
    """mflux at the toy's width; without a toy the embedded model keeps the precision even on a CPU."""
    from engine.pipelines import flux2_tiny
    from engine.pipelines.common.loading import load_by_layer

    def build(path: Path, *, quantize: int | None = None) -> Any:
        return load_by_layer(lambda: flux2_tiny.Flux2Tiny(Path(path).resolve(), quantize))

    with mock.patch.object(flux2_tiny, "build", build) if toy is None else toy.in_place():
        yield


def main() -> None:
    import mlx.core as mx

    device, precision, name = sys.argv[1:]
    folder = Path(name)
    arrays: dict[str, Any] = {}
    if device == "cpu":
        mx.set_default_device(mx.cpu)
    for one in PRECISIONS if precision == BOTH else (precision,):
        label = f" {one}" if precision == BOTH else ""
        arrays |= {f"{case}{label}": pixels for case, pixels in images(folder, one)}
    np.savez(file_of(folder, device, precision), **arrays)


if __name__ == "__main__":
    main()
