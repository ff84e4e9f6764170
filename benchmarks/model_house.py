"""Cost of changing models, of quantising, of changing LoRAs, and memory of images.

python -m benchmarks.model_house (a toy model of 125 M parameters and the embedded one)

python -m benchmarks.model_house --model ~/weights/klein --like flux2-klein-4b --lora x.safetensors (elsewhere)

Compared times come from one run, alternating; medians. Memory peaks come from one image per mode.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from engine.catalog import CATALOG, EMBEDDED, EMBEDDED_PATH, ModelSpec
from engine.client import Engine, EngineOptions
from engine.client.turn import Fact
from engine.protocol import Drawn, Generate, Load, Lora, Memory, ModelLoaded, Run, Save
from gateway.models.weights import weights_bytes
from gateway.residency.quantized_copies import Copies
from tests.support.engine_toy import save_toy_lora, save_toy_model

SMALL_PX = 128
WIDER: dict[str, Any] = {"num_attention_heads": 32, "num_layers": 2, "num_single_layers": 6}
MB = 1_000_000


class ModelBench:
    """One engine, one model to measure, and the embedded one to change to."""

    def __init__(self, folder: Path, model: Path, spec: ModelSpec, px: int) -> None:
        self.folder, self.model, self.spec, self.px = folder, model, spec, px
        self.engine = Engine(EngineOptions())
        self.peaks: dict[str, list[Memory]] = defaultdict(list)
        self.engine.on_memory = lambda run, memory: self.peaks[run.job].append(memory)

    async def run(self, plan: Generate | Load | Save, *, job: str = "job", **changes: Any) -> list[Fact]:
        tiny = {s.name: s for s in CATALOG}[EMBEDDED]
        spec, path = (tiny, EMBEDDED_PATH) if plan.model == EMBEDDED else (self.spec, self.model)
        fields: dict[str, Any] = {"job": job, "attempt": 1, "plan": plan, "spec": spec, "model_path": str(path)}
        facts = [fact async for fact in self.engine.run(Run(**{**fields, "spool_dir": str(self.folder), **changes}))]
        if facts[-1].kind != "succeeded":
            raise SystemExit(f"{job}: {facts[-1]}")
        return facts

    async def load(self, model: str, quantize: int | None = None, **changes: Any) -> float:
        facts = await self.run(Load(model=model, quantize=quantize), **changes)
        return sum(fact.seconds for fact in facts if isinstance(fact, ModelLoaded))

    def plan(self, **changes: Any) -> Generate:
        size = {"width_px": self.px, "height_px": self.px}
        fields: dict[str, Any] = {
            "model": self.spec.name,
            "prompt": "a red circle",
            "steps": 1,
            "guidance": 1.0,
            "seeds": (1,),
            **size,
        }
        return Generate(**{**fields, **changes})

    async def image(self, plan: Generate, job: str = "job", **changes: Any) -> float:
        facts = await self.run(plan, job=job, **changes)
        return sum(fact.seconds for fact in facts if isinstance(fact, Drawn))


async def change_models(bench: ModelBench, rounds: int) -> None:
    there, back = [], []
    for _ in range(rounds):
        back.append(await bench.load(EMBEDDED))
        there.append(await bench.load(bench.spec.name))
    said = f"{bench.spec.name} {median(there):.2f} s, {EMBEDDED} {median(back):.2f} s; a model that is kept: nothing"
    print(f"model switch: {said}")


async def quantise_model(bench: ModelBench, rounds: int, bits: int) -> None:
    copies = Copies(bench.folder / "models", keep=True)
    await bench.load(bench.spec.name, bits)
    unfinished = copies.begin(bench.spec, bench.model, bits)
    await bench.run(Save(model=bench.spec.name, quantize=bits, folder=str(unfinished)))
    copy = copies.finish(unfinished, bench.model)
    anew: list[float] = []
    again: list[float] = []
    for _ in range(rounds):
        for seconds, where in ((anew, None), (again, str(copy))):
            await bench.load(EMBEDDED)
            seconds.append(await bench.load(bench.spec.name, bits, copy_path=where))
    sizes = f"{weights_bytes(bench.model) / MB:.0f} -> {weights_bytes(copy) / MB:.0f} MB"
    times = f"anew {median(anew):.2f} s, from its copy {median(again):.2f} s: {median(anew) / median(again):.1f}x"
    print(f"{bits} bits: quantised {times} ({sizes})")


async def change_loras(bench: ModelBench, rounds: int, lora: Path) -> None:
    """Time of a small image right after a change, minus the time of the same one again."""
    name, inputs = bench.spec.name, {"x": str(lora)}
    await bench.load(name)
    changed, again, reload = [], [], []
    for n in range(rounds + 1):
        for scale in (1.0, 0.5 + n / 100):
            plan = bench.plan(loras=(Lora(name="x", scale=scale),), width_px=SMALL_PX, height_px=SMALL_PX)
            changed.append(await bench.image(plan, inputs=inputs))
            again.append(await bench.image(plan, inputs=inputs))
        await bench.load(EMBEDDED)
        reload.append(await bench.load(name))
    change = median(first - second for first, second in zip(changed[2:], again[2:], strict=True))
    pictures = f"a picture after it {median(changed[2:]):.2f} s, the same again {median(again[2:]):.2f} s"
    print(f"LoRA changed on {name}: {change:+.3f} s ({pictures}); loaded anew instead: {median(reload[1:]):.2f} s")


async def measure_memory(bench: ModelBench) -> None:
    """Peaks above the loaded weights, as MLX counts them."""
    image = bench.folder / "in.png"
    Image.effect_noise((bench.px, bench.px), 80).convert("RGB").save(image)
    inputs = {"inputs": {"in": str(image)}}
    modes = {
        "txt2img": (bench.plan(), {}),
        "txt2img, low_ram": (bench.plan(low_ram=True), {}),
        "img2img": (bench.plan(init_image="in", denoise=0.6), inputs),
        "img2img, low_ram": (bench.plan(init_image="in", denoise=0.6, low_ram=True), inputs),
    }
    if bench.spec.max_references:
        modes["edit, 1 reference"] = (bench.plan(references=("in",)), inputs)
    print(f"memory of {bench.spec.name} at {bench.px}x{bench.px}:")
    for mode, (plan, more) in modes.items():
        seconds = await bench.image(plan, mode, **more)
        memory = bench.peaks[mode][-1]
        above = memory.peak_bytes - memory.active_bytes
        print(f"  {mode:18} {memory.active_bytes / MB:6.0f} MB held, {above / MB:6.0f} MB above, {seconds:.2f} s")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder of weights; without it a toy is made")
    parser.add_argument("--like", default="flux2-klein-4b", help="the catalogue model whose architecture it has")
    parser.add_argument("--lora", type=Path, help="a LoRA that fits it")
    parser.add_argument("--px", type=int, help="edge of the pictures; 1024, or 256 for the toy")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = {spec.name: spec for spec in CATALOG}
        if asked.model is None:
            save_toy_model(folder / "toy", **WIDER)
            asked.lora = folder / "lora.safetensors"
            save_toy_lora(asked.lora, **WIDER)
            update = {"name": "toy", "native_px": None, "max_references": 1}
            bench = ModelBench(folder, folder / "toy", rows[EMBEDDED].model_copy(update=update), asked.px or 256)
        else:
            bench = ModelBench(folder, asked.model.expanduser().resolve(), rows[asked.like], asked.px or 1024)
        await bench.engine.start()
        try:
            await bench.engine.wait_ready(120)
            status = bench.engine.status
            print(json.dumps({"machine": platform.machine(), "system": platform.system(), "device": status.device}))
            await change_models(bench, asked.rounds)
            await quantise_model(bench, asked.rounds, asked.bits)
            if asked.lora is not None:
                await change_loras(bench, asked.rounds, asked.lora)
            await measure_memory(bench)
        finally:
            await bench.engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
