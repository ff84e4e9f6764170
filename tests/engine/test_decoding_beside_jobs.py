"""The last image of a job, decoded while the next job runs: facts of both, cancels, failures, deaths and memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.client import Engine, EngineDied, EngineOptions
from engine.client.turn import Fact, Turn
from engine.protocol import Denoised, Drawn, Failed, Load, Run, StepDone, Succeeded
from tests.support.engine import FAST, KLEIN, facts_of, fake, kinds, plan, read_ppm, run_of, running
from tests.support.engine_toy import save_toy_model

STEPS = ["step_done"] * 4
PATIENT = replace(FAST, cancel_answer_s=60.0)
"""The engine itself answers a cancel."""
SLOW = {"step_seconds": 0.05, "decode_seconds": 0.8}

OnFact = Callable[[Fact], Awaitable[None]]


def first(spool: Path, **changes: Any) -> Run:
    return run_of(spool, changes.pop("what", plan()), job="first", ends_beside=True, **changes)


def second(spool: Path, **changes: Any) -> Run:
    return run_of(spool, changes.pop("what", plan(seeds=(8,))), **{"job": "second", "begins_beside": True, **changes})


@asynccontextmanager
async def warm(options: EngineOptions, spool: Path, **changes: Any) -> AsyncIterator[Engine]:
    """An engine that has run a job: the first one with a model shows what memory it needs, and runs alone."""
    async with running(options) as engine:
        assert (
            kinds(await facts_of(engine, run_of(spool, job="before", ends_beside=True, **changes)))[-1] == "succeeded"
        )
        yield engine


async def both(
    engine: Engine, former: Run, latter: Run, on_former: OnFact | None = None, on_latter: OnFact | None = None
) -> tuple[list[Fact | EngineDied], list[Fact | EngineDied], list[tuple[str, str]]]:
    """The facts of two jobs, the second of which begins once the engine can take it; and those of both in order."""
    order: list[tuple[str, str]] = []
    may_begin = asyncio.Event()

    async def run(what: Run, on_fact: OnFact | None) -> list[Fact | EngineDied]:
        facts: list[Fact | EngineDied] = []

        async def note(fact: Fact) -> None:
            facts.append(fact)
            order.append((what.job, fact.kind))
            if isinstance(fact, Denoised):
                may_begin.set()
            if on_fact is not None:
                await on_fact(fact)

        try:
            await facts_of(engine, what, note)
        except EngineDied as death:
            facts.append(death)
        may_begin.set()
        return facts

    async def later() -> list[Fact | EngineDied]:
        await may_begin.wait()
        return await run(latter, on_latter)

    formers, latters = await asyncio.gather(run(former, on_former), later())
    return formers, latters, order


async def test_next_job_runs_while_the_last_image_is_decoded(tmp_path: Path) -> None:
    async with warm(fake(**SLOW), tmp_path) as engine:
        former, latter, order = await both(engine, first(tmp_path, what=plan(seeds=(1, 2))), second(tmp_path))
        one = [*STEPS, "decoding", "drawn"]
        assert kinds(former) == [*one, *STEPS, "decoding", "denoised", "drawn", "succeeded"]
        assert kinds(latter) == [*one, "succeeded"]
        assert order.index(("second", "step_done")) < order.index(("first", "succeeded"))
        assert order.index(("first", "succeeded")) < order.index(("second", "decoding")), (
            "one image is decoded at a time"
        )
        assert engine.status.state == "ready"


async def test_first_job_with_a_model_runs_alone(tmp_path: Path) -> None:
    async with running(fake(**SLOW)) as engine:
        facts = await facts_of(engine, first(tmp_path))
        assert kinds(facts)[2:] == [*STEPS, "decoding", "drawn", "succeeded"]


@pytest.mark.parametrize(
    "changes",
    [
        {"begins_beside": False},
        {"what": plan(low_ram=True)},
        {"model_path": "/another"},
        {"what": Load(model=KLEIN.name)},
    ],
)
async def test_next_job_waits_for_the_decoding_where_it_must_not_be_beside_it(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    async with warm(fake(step_seconds=0.01, decode_seconds=0.3), tmp_path) as engine:
        _, latter, order = await both(engine, first(tmp_path), second(tmp_path, **changes))
        at = order.index(("first", "succeeded"))
        assert {job for job, _ in order[:at]} == {"first"}
        assert isinstance(latter[-1], Succeeded)


async def test_job_is_cancelled_at_once_while_its_last_image_is_decoded(tmp_path: Path) -> None:
    async with warm(fake(PATIENT, step_seconds=0.05, decode_seconds=2.0), tmp_path) as engine:
        pid, asked, answered = engine.status.pid, 0.0, 0.0

        async def cancel(fact: Fact) -> None:
            nonlocal asked, answered
            if isinstance(fact, Denoised):
                asked = time.monotonic()
                await engine.cancel("first")
            elif fact.kind == "cancelled":
                answered = time.monotonic()

        former, latter, _ = await both(engine, first(tmp_path), second(tmp_path), cancel)
        assert kinds(former)[-2:] == ["denoised", "cancelled"]
        assert answered - asked < 1.5, "it waited for the decoding"
        assert kinds(latter) == [*STEPS, "decoding", "drawn", "succeeded"]
        assert engine.status.pid == pid
        assert not (tmp_path / "first.1.0.ppm").exists(), "the cancelled image was written"
        assert (await facts_of(engine, run_of(tmp_path, job="third")))[-1] == Succeeded()


async def test_next_job_is_cancelled_within_a_step_and_the_former_is_not(tmp_path: Path) -> None:
    async with warm(fake(PATIENT, step_seconds=0.05, decode_seconds=1.5), tmp_path) as engine:
        pid = engine.status.pid

        async def cancel(fact: Fact) -> None:
            if isinstance(fact, StepDone) and fact.step == 1:
                await engine.cancel("second")

        former, latter, order = await both(engine, first(tmp_path), second(tmp_path), on_latter=cancel)
        assert kinds(latter)[-1] == "cancelled"
        assert len(latter) <= 3
        assert order.index(("second", "cancelled")) < order.index(("first", "succeeded"))
        assert isinstance(former[-1], Succeeded)
        assert engine.status.pid == pid


async def test_next_job_is_cancelled_while_it_waits_for_the_decoding(tmp_path: Path) -> None:
    async with warm(fake(PATIENT, step_seconds=0.01, decode_seconds=1.5), tmp_path) as engine:

        async def cancel_next(fact: Fact) -> None:
            if isinstance(fact, Denoised):
                asyncio.get_running_loop().call_later(0.2, lambda: tasks.append(asyncio.ensure_future(stop())))

        async def stop() -> None:
            await engine.cancel("second")

        tasks: list[asyncio.Future[None]] = []
        waiting = second(tmp_path, begins_beside=False)
        former, latter, order = await both(engine, first(tmp_path), waiting, cancel_next)
        assert kinds(latter) == ["cancelled"]
        assert order.index(("second", "cancelled")) < order.index(("first", "succeeded"))
        assert isinstance(former[-1], Succeeded)


async def test_skip_is_for_the_job_that_is_denoised(tmp_path: Path) -> None:
    async with warm(fake(step_seconds=0.1, decode_seconds=0.3), tmp_path) as engine:

        async def skip(fact: Fact) -> None:
            if isinstance(fact, StepDone) and fact.step == 1:
                engine.skip("first")
                engine.skip("second")

        cut = [
            [fact.cut_short for fact in facts if isinstance(fact, Drawn)]
            for facts in (await both(engine, first(tmp_path), second(tmp_path), on_latter=skip))[:2]
        ]
        assert cut == [[False], [True]]


async def test_failed_decoding_fails_its_own_job_only(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_bytes(b".")
    script = {"raise_in": "decode", "crash_times": 1, "counter_path": str(counter)}
    async with warm(fake(step_seconds=0.05, decode_seconds=0.5, **script), tmp_path) as engine:

        async def misbehave_once(fact: Fact) -> None:
            if isinstance(fact, StepDone) and fact.step == 3:
                counter.unlink(missing_ok=True)

        former, latter, _ = await both(engine, first(tmp_path), second(tmp_path), misbehave_once)
        assert isinstance(former[-1], Failed)
        assert former[-1].code == "internal_error"
        assert kinds(latter) == [*STEPS, "decoding", "drawn", "succeeded"]


async def test_death_with_two_jobs_is_shared(tmp_path: Path) -> None:
    async with warm(fake(step_seconds=0.05, decode_seconds=5.0), tmp_path) as engine:

        async def kill(fact: Fact) -> None:
            if isinstance(fact, StepDone) and engine.status.pid is not None:
                os.kill(engine.status.pid, signal.SIGKILL)

        former, latter, _ = await both(engine, first(tmp_path), second(tmp_path), on_latter=kill)
        for facts, phase in ((former, "decoding"), (latter, "drawing")):
            assert isinstance(death := facts[-1], EngineDied)
            assert (death.reason, death.phase, death.is_shared) == ("engine_crash", phase, True)


async def test_death_of_one_job_is_its_own(tmp_path: Path) -> None:
    script = {"crash_in": "decode", "crash_times": 1, "counter_path": str(tmp_path / "counter")}
    async with running(fake(**script)) as engine:
        with pytest.raises(EngineDied) as death:
            await facts_of(engine, first(tmp_path))
        assert not death.value.is_shared


async def test_silence_is_the_fault_of_the_job_that_is_silent(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_bytes(b".")
    impatient = replace(FAST, first_step_s=0.4, step_floor_s=0.4, decode_s=30.0)
    hang = {"hang_in": "step", "hang_at_step": 3, "crash_times": 1, "counter_path": str(counter)}
    async with warm(fake(impatient, step_seconds=0.02, decode_seconds=1.0, **hang), tmp_path) as engine:

        async def hang_once(fact: Fact) -> None:
            if isinstance(fact, StepDone) and fact.step == 1:
                counter.unlink(missing_ok=True)

        # The decoding beside it takes longer than a step may, which is no silence of the job that waits for it.
        former, latter, _ = await both(engine, first(tmp_path), second(tmp_path))
        assert isinstance(former[-1], Succeeded)
        assert isinstance(latter[-1], Succeeded)
        former, latter, _ = await both(engine, first(tmp_path), second(tmp_path), on_latter=hang_once)
        assert isinstance(former[-1], Succeeded)
        assert isinstance(death := latter[-1], EngineDied)
        assert (death.reason, death.is_shared) == ("engine_timeout", False)


def test_silence_of_a_job_is_as_long_as_the_decoding_before_it() -> None:
    async def run() -> None:
        options = EngineOptions(step_floor_s=1.0, step_factor=2.0, decode_s=100.0)
        former, latter = (Turn(run_of(Path("/spool"), job=job), options) for job in ("first", "second"))
        latter.before = former
        former.on_fact(Denoised(image=0))
        latter.on_fact(StepDone(image=0, step=1, steps=4, seconds=0.1))
        assert latter._allowance_s == 100.0
        former.on_fact(Succeeded())
        assert latter._allowance_s == 1.0

    asyncio.run(run())


async def test_memory_is_learned_from_jobs_that_were_alone(tmp_path: Path) -> None:
    learned: list[tuple[str, str]] = []
    async with running(fake(**SLOW)) as engine:
        engine.on_memory = lambda run, memory: learned.append((run.job, memory.after))
        await facts_of(engine, run_of(tmp_path, job="before", ends_beside=True))
        await both(engine, first(tmp_path, what=plan(seeds=(1, 2))), second(tmp_path))
        await facts_of(engine, first(tmp_path))
        assert learned == [("before", "load"), ("before", "picture"), ("first", "picture"), ("first", "picture")]


async def test_grown_engine_takes_no_job_beside_a_decoding_and_is_replaced(tmp_path: Path) -> None:
    async with warm(fake(memory_growth_bytes=2**30, **SLOW), tmp_path) as engine:
        pid = engine.status.pid
        for job in ("first", "second"):
            facts = await facts_of(engine, run_of(tmp_path, job=job, ends_beside=True))
            assert "denoised" not in kinds(facts)
            await engine.wait_ready(20)
        assert engine.status.pid != pid


async def test_unload_waits_for_the_decoding(tmp_path: Path) -> None:
    async with warm(fake(**SLOW), tmp_path) as engine:
        unloads: list[asyncio.Task[None]] = []

        async def unload(fact: Fact) -> None:
            if isinstance(fact, Denoised):
                unloads.append(asyncio.create_task(engine.unload()))

        facts = await facts_of(engine, first(tmp_path), unload)
        assert isinstance(facts[-1], Succeeded)
        await unloads[0]
        await engine.wait_ready(20)
        assert engine.status.loaded_model is None


def test_pixels_are_those_of_jobs_one_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    from tests.engine.test_engine_contract import FREE

    save_toy_model(tmp_path / "model")
    toy = {"spec": FREE, "model_path": str(tmp_path / "model")}
    sizes = [plan(seeds=(1, 2)), plan(seeds=(3,), width_px=96, height_px=64, prompt="a blue square")]

    async def run() -> tuple[list[bytes], list[bytes], bool]:
        async with warm(EngineOptions(backend="mlx"), tmp_path, **toy) as engine:
            alone = [
                await facts_of(engine, run_of(tmp_path, what, job=f"alone{number}", **toy))
                for number, what in enumerate(sizes)
            ]
            after = [read_ppm(tmp_path / fact.spool)[2] for facts in alone for fact in facts if isinstance(fact, Drawn)]
            one, two, _ = await both(
                engine, first(tmp_path, what=sizes[0], **toy), second(tmp_path, what=sizes[1], **toy)
            )
            drawn = [fact for fact in (*one, *two) if isinstance(fact, Drawn)]
            return after, [read_ppm(tmp_path / fact.spool)[2] for fact in drawn], "denoised" in kinds(one)

    after, beside, was_beside = asyncio.run(run())
    assert was_beside
    assert len(set(after[1:])) == 2
    assert after == beside
