"""Whether the engine draws what mflux's own classes draw: python -m benchmarks.parity [--toy NAME] [--case WORD] ...

A row a picture, of every family at toy width, in float32 and bfloat16, whole, at 8 and at 4 bits: drawn by the engine
and by mflux's class with the same arguments. `differs` is the largest and the mean difference of a channel of a pixel,
of 255; `counts` is how far the picture is from the plain one of its model, whole and in float32: where that is 0 the
row says little. Leaves with 1 where a row differs by more than it may.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from mflux.models.common.config.model_config import ModelConfig
from PIL.Image import Image, fromarray

from engine.catalog import ModelSpec
from engine.pipelines.common.noise import img2img_schedule
from engine.protocol import Control, Lora
from tests.engine.test_engine_toys import CAPTION, TOYS
from tests.support.engine import SPECS
from tests.support.engine_studio import Studio, save_inputs
from tests.support.mflux_alone import PIPELINES, Alone
from tests.support.toys import Toy, found

SIZE = (64, 32)
STEPS = 3
PRECISIONS = ("float32", "bfloat16")
BITS = (None, 8, 4)
LORA_SCALE = 0.8
BAKED = "LoRA baked"


@dataclass(frozen=True)
class Case:
    """`said` is what of a plan is not the usual; `lora` puts one on, which mflux may add to the weights."""

    name: str
    said: dict[str, Any] = field(default_factory=dict)
    lora: bool = False

    def allowed(self, spec: ModelSpec, precision: str, bits: int | None) -> int:
        """By how much its picture may differ, of 255.

        mflux adds a baked LoRA to the weights before it rounds them to the precision and the bits, and so Krea 2's
        ControlNet, which the engine keeps beside them for its strength to change. A picture that ERNIE-Image begins
        from makes mflux go on in float32, where the engine keeps to the loop's precision.
        """
        if bits and spec.family == "krea2" and spec.control:
            return 4 if bits == 8 else 32
        if self.name == BAKED:
            return 1 if (precision, bits) == ("float32", None) else 8
        begun = "init_image" in self.said and precision == "bfloat16"
        return 8 if begun and spec.family == "ernie" else 0


def cases_of(toy: Toy) -> list[Case]:
    """What its row of the catalogue says that it can do, and mflux's class, too."""
    spec = SPECS[toy.name]
    found_cases = [Case("plain")]
    begins = "image_strength" in inspect.signature(found(PIPELINES[toy.name]).generate_image).parameters
    if begins and spec.init_image and not (spec.needs_mask or spec.needs_reference or spec.control):
        found_cases += [Case(f"img2img {x}", {"init_image": "photo", "denoise": x}) for x in (0.3, 0.75)]
    if spec.max_references and not spec.needs_reference:
        found_cases.append(Case("a reference", {"references": ("wide",)}))
    if spec.max_references > 1:
        found_cases.append(Case("2 references", {"references": ("wide", "blue")}))
    if toy.name == "flux2-klein-4b":
        found_cases.append(Case("guidance 4", {"guidance": 4.0}))
    if toy.lora and spec.lora:
        if "bake_lora" in inspect.signature(found(PIPELINES[toy.name])).parameters:
            found_cases.append(Case("LoRA", lora=True))
        found_cases.append(Case(BAKED, lora=True))
    return found_cases


def usual(spec: ModelSpec) -> dict[str, Any]:
    """As its row has it, with a negative prompt where that counts."""
    said: dict[str, Any] = {"width_px": SIZE[0], "height_px": SIZE[1], "guidance": spec.default_guidance}
    if not spec.fixed_steps:
        said["steps"] = max(STEPS, spec.min_steps)
    if spec.negative_prompt:
        said["negative_prompt"] = "grey"
    if spec.family.startswith("fibo"):
        said["prompt"] = CAPTION
    if spec.control:
        # mflux finds outlines itself, but for Qwen-Image-2.1, to which a map of any kind is given.
        is_map = spec.control != "canny" or spec.family == "qwen21"
        said["control"] = Control(kind=spec.control, image="photo", is_map=is_map, strength=0.7)
    return said


class Easels:
    """A toy's engine and mflux's class, at one precision and so many bits."""

    def __init__(self, toy: Toy, folder: Path, also: tuple[str, ...], inputs: dict[str, str], bits: int | None) -> None:
        spec = SPECS[toy.name]
        self.studio = Studio(spec, folder / "model", also=also, inputs=inputs, **{**toy.usual, **usual(spec)})
        self.bits = bits
        self._lora = folder / "lora.safetensors"
        self._alone = Alone(self.studio, bits=bits)

    def both(self, case: Case) -> tuple[Image, Image]:
        """The engine's picture and mflux's."""
        self.studio.load(quantize=self.bits)
        plan = self.studio.plan(**case.said)
        schedule = None
        if plan.init_image is not None and plan.denoise < 1:
            painter: Any = self.studio.backend._pipeline
            schedule = img2img_schedule(plan.steps, plan.denoise, painter._sigma_of(*SIZE))
        if not case.lora:
            return self.studio.draw(**case.said), self._alone.draw(plan, schedule)
        worn = (Lora(name="lora", scale=LORA_SCALE),)
        alone = Alone(self.studio, bits=self.bits, loras=((self._lora, LORA_SCALE),), baked=case.name == BAKED)
        return self.studio.draw(inputs={"lora": str(self._lora)}, loras=worn), alone.draw(plan)


def save_reference(file: str) -> None:
    """A picture of other proportions than those drawn: mflux's FLUX.3 cuts a picture of its reference's own size."""
    fromarray(np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)).save(file)


@contextmanager
def quiet() -> Iterator[None]:
    """mflux says much while it loads."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def difference(one: Image, other: Image) -> Any:
    """Of each channel of each pixel, an array."""
    if one.size != other.size:
        return np.full((1,), 255)
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


@dataclass
class Sum:
    """Rows so far."""

    rows: int = 0
    equal: int = 0
    wrong: int = 0
    idle: int = 0
    """Those that look as the plain picture."""


def compare(toy: Toy, asked: argparse.Namespace, sums: Sum) -> None:
    spec = SPECS[toy.name]
    with tempfile.TemporaryDirectory() as name, toy.in_place():
        folder = Path(name)
        with quiet():
            toy.save(folder / "model")
            also = toy.part(folder / "model")
            inputs = save_inputs(folder, SIZE)
            inputs["wide"] = str(folder / "wide.png")
            save_reference(inputs["wide"])
            if toy.lora:
                toy.save_lora(folder / "lora.safetensors")
        plain: Image | None = None
        for precision in asked.precision or PRECISIONS:
            for bits in asked.bits or BITS:
                easels = Easels(toy, folder, also, inputs, bits or None)
                with mock.patch.object(ModelConfig, "precision", getattr(mx, precision)):
                    for case in cases_of(toy):
                        if asked.case and asked.case not in case.name:
                            continue
                        with quiet():
                            ours, theirs = easels.both(case)
                        plain = plain or ours
                        off, counts = difference(ours, theirs), int(difference(ours, plain).max())
                        allowed = case.allowed(spec, precision, bits or None)
                        wrong = off.max() > allowed
                        sums.rows += 1
                        sums.equal += not off.any()
                        sums.wrong += bool(wrong)
                        sums.idle += counts == 0 and ours is not plain
                        said = f"differs {off.max():3d} {off.mean():7.3f}  counts {counts:3d}"
                        note = f"  more than {allowed}" if wrong else ""
                        print(f"{toy.name:38}{case.name:14}{precision:9}{bits or 'whole':>6}  {said}{note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="append", choices=TOYS, metavar="NAME", help="one of the catalogue's rows")
    parser.add_argument("--case", metavar="WORD", help="those whose name has it: plain, img2img, reference, LoRA")
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--bits", action="append", type=int, choices=(0, 8, 4), help="0 for whole")
    asked = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)
    mx.disable_compile()  # the CPU's compiler takes longer than all pictures together
    sums, began = Sum(), time.monotonic()
    for name in asked.toy or TOYS:
        compare(TOYS[name], asked, sums)
    print(f"{sums.equal} of {sums.rows} rows are equal, {sums.wrong} differ by more than they may; ", end="")
    print(f"{sums.idle} look as the plain picture; mflux {version('mflux')}, MLX {version('mlx')}, ", end="")
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if sums.wrong else 0)


if __name__ == "__main__":
    main()
