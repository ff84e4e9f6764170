"""The embedded model through mflux: quantised, saved, loaded from its copy; with little memory; damaged."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.catalog import EMBEDDED_PATH
from engine.client import Engine, EngineOptions
from engine.client.turn import Fact
from engine.protocol import Drawn, Failed, Load, Memory, ModelLoaded, ModelLoading, Run, Save
from gateway.residency.quantized_copies import Copies, stored_bits
from tests.support.engine import TINY, facts_of, kinds, plan, read_ppm, run_of


@dataclass
class Bench:
    """A running engine that draws with the embedded model, and what it said of its memory."""

    runner: asyncio.Runner
    engine: Engine
    spool: Path
    heard: list[tuple[Run, Memory]] = field(default_factory=list)

    def facts(self, what: Any, **changes: Any) -> list[Fact]:
        run = run_of(self.spool, what, **{"spec": TINY, "model_path": str(EMBEDDED_PATH), **changes})
        return self.runner.run(facts_of(self.engine, run))

    def drawn(self, what: Any, **changes: Any) -> bytes:
        (drawn,) = [fact for fact in self.facts(what, **changes) if isinstance(fact, Drawn)]
        return read_ppm(self.spool / drawn.spool)[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    spool = tmp_path_factory.mktemp("copies")
    with asyncio.Runner() as runner:
        engine = Engine(EngineOptions(backend="mlx", memory_limit_bytes=4_000_000_000, cache_limit_bytes=50_000_000))
        found = Bench(runner, engine, spool)
        engine.on_memory = lambda run, memory: found.heard.append((run, memory))
        runner.run(engine.start())
        runner.run(engine.wait_ready(90))
        yield found
        runner.run(engine.stop())


PLAN = plan(model=TINY.name, width_px=128, height_px=128, steps=1, quantize=8)


def test_a_quantised_copy_is_smaller_loads_as_one_and_draws_the_same_pixels(bench: Bench, tmp_path: Path) -> None:
    anew = bench.drawn(PLAN)
    copies = Copies(tmp_path, keep=True)
    assert copies.wants(TINY, EMBEDDED_PATH, 8, 1)
    unfinished = copies.begin(TINY, EMBEDDED_PATH, 8)
    save = Save(model=TINY.name, quantize=8, folder=str(unfinished))
    assert kinds(bench.facts(save)) == ["succeeded"]
    assert bench.drawn(PLAN) == anew, "the model that was saved is still the one that draws"
    copy = copies.finish(unfinished, EMBEDDED_PATH)
    assert stored_bits(copy) == 8
    sizes = [sum(file.stat().st_size for file in folder.rglob("*.safetensors")) for folder in (copy, EMBEDDED_PATH)]
    assert sizes[0] < sizes[1]

    bench.facts(Load(model=TINY.name))
    facts = bench.facts(Load(model=TINY.name, quantize=8), copy_path=str(copy))
    assert [fact.from_copy for fact in facts if isinstance(fact, ModelLoaded)] == [True]
    assert bench.drawn(PLAN, copy_path=str(copy)) == anew


def test_quantised_copy_damaged_is_skipped_and_source_is_loaded(bench: Bench, tmp_path: Path) -> None:
    bench.facts(Load(model=TINY.name))
    shutil.copytree(EMBEDDED_PATH, tmp_path / "copy")
    file = next((tmp_path / "copy" / "vae").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    facts = bench.facts(Load(model=TINY.name, quantize=8), copy_path=str(tmp_path / "copy"))
    assert [fact.from_copy for fact in facts if isinstance(fact, ModelLoaded)] == [False]
    assert kinds(facts)[-1] == "succeeded"


def test_quantised_copy_is_saved_only_for_model_in_memory(bench: Bench, tmp_path: Path) -> None:
    bench.facts(Load(model=TINY.name))
    (failed,) = bench.facts(Save(model=TINY.name, quantize=4, folder=str(tmp_path)))
    assert isinstance(failed, Failed)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_reported_after_load_and_at_peak_of_each_image(bench: Bench) -> None:
    bench.facts(Load(model=TINY.name))
    bench.heard.clear()
    bench.drawn(PLAN)
    assert [memory.after for _, memory in bench.heard] == ["load", "picture"]
    (_, loaded), (run, picture) = bench.heard
    assert run.plan == PLAN
    assert 0 < loaded.active_bytes <= loaded.peak_bytes
    assert picture.peak_bytes > picture.active_bytes
    assert bench.engine.status.memory_limit_bytes == 4_000_000_000


def test_model_weights_are_shared_by_drawing_and_editing(bench: Bench, tmp_path: Path) -> None:
    Image.radial_gradient("L").resize((128, 128)).convert("RGB").save(tmp_path / "photo.png")
    bench.facts(Load(model=TINY.name, quantize=8))
    bench.drawn(PLAN)
    bench.heard.clear()
    for references in (("photo",), (), ("photo",)):
        asked = PLAN.model_copy(update={"references": references})
        facts = bench.facts(asked, inputs={"photo": str(tmp_path / "photo.png")})
        assert not [fact for fact in facts if isinstance(fact, ModelLoading | ModelLoaded)]
    held = [memory.active_bytes for _, memory in bench.heard]
    assert len(held) == 3
    assert max(held) < 1.05 * min(held)


def test_memory_limited_image_looks_the_same_and_next_one_is_unchanged(bench: Bench) -> None:
    ways = [PLAN.model_copy(update={"low_ram": low}) for low in (False, True, False)]
    for way in ways:  # on a CPU the first image of a size computes its convolutions twice
        bench.drawn(way)
    bench.heard.clear()
    plain, spared, again = map(bench.drawn, ways)
    peaks = [memory.peak_bytes for _, memory in bench.heard]
    assert peaks[1] < peaks[0]
    assert plain == again
    assert max(abs(one - other) for one, other in zip(plain, spared, strict=True)) <= 2


def lie(content: bytes) -> bytes:
    """Of a weights file: its first tensor claims to lie where the second does."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lie, lambda _: b""])
def test_model_damaged_is_rejected_before_mlx_and_engine_survives(damage: Any, bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_PATH, tmp_path / "bad")
    file = next((tmp_path / "bad" / "transformer").glob("*.safetensors"))
    file.write_bytes(damage(file.read_bytes()))
    pid = bench.engine.status.pid
    failed = bench.facts(PLAN, model_path=str(tmp_path / "bad"))[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "model_load_failed"
    assert file.name in failed.message
    assert str(tmp_path) not in failed.message
    assert bench.engine.status.pid == pid
    assert kinds(bench.facts(PLAN))[-1] == "succeeded"
