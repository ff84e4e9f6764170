"""Images decoded while the next one is denoised: the order of facts, and cancels, skips and failures meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.client import EngineOptions
from engine.client.turn import Deadline, Fact
from engine.decoding import DecodingThread
from engine.protocol import Cancelled, Decoding, Drawn, Failed, StepDone
from tests.support.engine import FAST, facts_of, fake, kinds, plan, read_ppm, run_of, running
from tests.support.engine_toy import save_toy_model

SEEDS = (1, 2, 3)
STEPS = ["step_done"] * 4


def drawn_with(spool: Path, options: EngineOptions, *, beside: bool = True, **changes: Any) -> list[Fact]:
    """Facts of one run of three images."""

    async def run() -> list[Fact]:
        async with running(options) as engine:
            return await facts_of(engine, run_of(spool, plan(seeds=SEEDS, **changes), decode_beside=beside))

    return asyncio.run(run())


def places(facts: list[Fact]) -> list[tuple[str, int]]:
    """Kind and image of each fact of an image, one for all steps."""
    found = [(fact.kind, fact.image) for fact in facts if isinstance(fact, StepDone | Decoding | Drawn)]
    return [one for at, one in enumerate(found) if one not in found[:at]]


def test_image_is_decoded_beside_the_steps_of_the_next(tmp_path: Path) -> None:
    facts = drawn_with(tmp_path, fake(step_seconds=0.05, decode_seconds=0.5))
    assert places(facts) == [
        ("step_done", 0),
        ("decoding", 0),
        ("step_done", 1),
        ("drawn", 0),
        ("decoding", 1),
        ("step_done", 2),
        ("drawn", 1),
        ("decoding", 2),
        ("drawn", 2),
    ]
    assert facts[-1].kind == "succeeded"
    assert [fact.seed for fact in facts if isinstance(fact, Drawn)] == list(SEEDS)


def test_next_image_is_decoded_only_after_a_slower_one(tmp_path: Path) -> None:
    facts = drawn_with(tmp_path, fake(decode_seconds=0.1))
    at = {one: number for number, one in enumerate(places(facts))}
    for image in (0, 1):
        assert at["drawn", image] < at["decoding", image + 1]


@pytest.mark.parametrize("changes", [{"beside": False}, {"low_ram": True}])
def test_images_follow_each_other_where_memory_is_short(changes: dict[str, Any], tmp_path: Path) -> None:
    facts = drawn_with(tmp_path, fake(step_seconds=0.01, decode_seconds=0.05), **changes)
    assert kinds(facts)[2:] == [*[*STEPS, "decoding", "drawn"] * 3, "succeeded"]


def test_cancel_ends_a_job_within_one_step_while_an_image_is_decoded(tmp_path: Path) -> None:
    async def run() -> None:
        patient = replace(FAST, cancel_answer_s=60.0)  # the engine itself answers
        async with running(fake(patient, step_seconds=0.05, decode_seconds=3.0)) as engine:
            began = 0.0

            async def cancel(fact: Fact) -> None:
                nonlocal began
                if isinstance(fact, StepDone) and fact.image == 1:
                    began = began or time.monotonic()
                    await engine.cancel("job1")

            facts = await facts_of(engine, run_of(tmp_path, plan(seeds=SEEDS), decode_beside=True), cancel)
            assert isinstance(facts[-1], Cancelled)
            assert time.monotonic() - began < 2.5, "it waited for the decoding"
            pid = engine.status.pid
            later = await facts_of(engine, run_of(tmp_path, plan(seeds=(5,)), job="job2"))
            assert kinds(later) == [*STEPS, "decoding", "drawn", "succeeded"]
            assert engine.status.pid == pid
            assert [file.name for file in tmp_path.iterdir()] == ["job2.1.0.ppm"], "the cancelled image was written"

    asyncio.run(run())


def test_skip_beside_a_decoding_is_for_the_image_that_is_drawn(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(fake(step_seconds=0.1, decode_seconds=0.25)) as engine:

            async def skip(fact: Fact) -> None:
                if isinstance(fact, StepDone) and (fact.image, fact.step) == (1, 1):
                    engine.skip("job1")

            facts = await facts_of(engine, run_of(tmp_path, plan(seeds=SEEDS), decode_beside=True), skip)
            assert [fact.cut_short for fact in facts if isinstance(fact, Drawn)] == [False, True, False]

    asyncio.run(run())


@pytest.mark.parametrize("beside", [True, False])
def test_failed_decoding_fails_the_job_as_without_a_thread(beside: bool, tmp_path: Path) -> None:
    script = {"raise_in": "decode", "crash_times": 1, "counter_path": str(tmp_path / "counter")}
    facts = drawn_with(tmp_path, fake(step_seconds=0.02, **script), beside=beside)
    assert isinstance(facts[-1], Failed)
    assert (facts[-1].code, facts[-1].message) == ("internal_error", "The engine could not draw this picture.")
    assert not any(isinstance(fact, Drawn) for fact in facts)
    assert not list(tmp_path.glob("*.ppm"))


def test_failed_step_comes_after_the_image_that_was_being_decoded(tmp_path: Path) -> None:
    async def run() -> list[Fact]:
        counter = tmp_path / "counter"
        script = {"oom_at_step": 2, "crash_times": 3, "counter_path": str(counter)}
        async with running(fake(step_seconds=0.15, decode_seconds=1.0, **script)) as engine:

            async def from_now_on(fact: Fact) -> None:
                if isinstance(fact, Decoding):
                    counter.write_bytes(b"..")

            counter.write_bytes(b"...")
            what = run_of(tmp_path, plan(seeds=SEEDS), decode_beside=True)
            return await facts_of(engine, what, from_now_on)

    facts = asyncio.run(run())
    assert [fact.image for fact in facts if isinstance(fact, Drawn)] == [0]
    assert isinstance(facts[-1], Failed)
    assert facts[-1].code == "engine_oom"
    assert isinstance(facts[-2], Drawn)


def test_pixels_are_those_of_one_image_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    from tests.engine.test_engine_contract import FREE

    save_toy_model(tmp_path / "model")

    async def run() -> list[list[bytes]]:
        async with running(EngineOptions(backend="mlx")) as engine:
            pixels = []
            for job, beside in (("after", False), ("beside", True)):
                what = run_of(
                    tmp_path,
                    plan(seeds=SEEDS, previews=1),
                    job=job,
                    spec=FREE,
                    model_path=str(tmp_path / "model"),
                    decode_beside=beside,
                )
                facts = await facts_of(engine, what)
                pixels.append([read_ppm(tmp_path / fact.spool)[2] for fact in facts if isinstance(fact, Drawn)])
            return pixels

    after, beside = asyncio.run(run())
    assert len(set(after)) == 3
    assert after == beside


def test_steps_may_take_as_long_as_the_decoding_beside_them() -> None:
    options = EngineOptions(step_floor_s=1.0, step_factor=2.0, decode_s=100.0)
    deadline = Deadline(options)

    def step(image: int) -> None:
        deadline.on_fact(StepDone(image=image, step=1, steps=1, seconds=0.1))

    step(0)
    assert deadline.allowance_s == 1.0
    deadline.on_fact(Decoding(image=0))
    step(1)
    assert (deadline.phase, deadline.allowance_s) == ("drawing", 100.0)
    spooled = {"spool": "a", "width_px": 1, "height_px": 1, "drawn_px": (1, 1), "seconds": 1.0}
    deadline.on_fact(Drawn(image=0, seed=1, **spooled))
    assert deadline.allowance_s == 1.0
    deadline.on_fact(Decoding(image=1))
    step(1)  # of a second pass
    assert deadline.allowance_s == 1.0


@pytest.fixture
def decoding() -> DecodingThread:
    return DecodingThread()


def test_decoding_thread_raises_an_error_once_and_goes_on(decoding: DecodingThread) -> None:
    def fail() -> None:
        raise ValueError("x")

    decoding.start(fail)
    with pytest.raises(ValueError, match="x"):
        decoding.wait()
    done = threading.Event()
    decoding.check()
    decoding.start(done.set)
    decoding.wait()
    assert done.is_set()
    decoding.start(fail)
    decoding.settle()
    decoding.check()


def test_wait_for_the_decoding_thread_can_be_left(decoding: DecodingThread) -> None:
    class Left(Exception):
        pass

    def leave() -> None:
        raise Left

    end = threading.Event()
    decoding.start(lambda: end.wait(10) and None)
    with pytest.raises(Left):
        decoding.wait(leave)
    assert not decoding.is_idle
    end.set()
    decoding.settle()
