"""Whatever the child does, the gateway's half tells the truth of it, replaces it, and leaves no process behind."""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.client import Engine, EngineDied, EngineStopped
from engine.client.turn import Fact
from engine.protocol import Cancelled, Failed, StepDone
from tests.support.engine import FAST, alive, facts_of, fake, gone, kinds, plan, run_of, running
from tests.support.loops import on_both_loops

STEP = 2


async def dies(engine: Engine, *, job: str = "job1", spool: Path, **changes: Any) -> EngineDied:
    with pytest.raises(EngineDied) as caught:
        await facts_of(engine, run_of(spool, job=job, **changes))
    return caught.value


async def is_down(engine: Engine) -> None:
    for _ in range(3000):
        if engine.status.state == "down":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("still not down")


@on_both_loops
async def test_job_runs_and_engine_is_ready_again(tmp_path: Path) -> None:
    async with running(fake()) as engine:
        assert engine.status.state == "starting"
        await engine.wait_ready(20)
        assert engine.status.works
        assert kinds(await facts_of(engine, run_of(tmp_path)))[-1] == "succeeded"
        await engine.wait_ready(20)
        assert engine.status.loaded_model == "flux2-klein-4b"
    assert engine.status.state == "stopped"
    with pytest.raises(EngineStopped):
        await facts_of(engine, run_of(tmp_path))


async def test_model_unload_waits_for_running_job_and_leaves_empty_engine(tmp_path: Path) -> None:
    async with running(fake(step_seconds=0.1)) as engine:
        await engine.wait_ready(20)
        await engine.unload()  # nothing is loaded: nothing happens
        first = engine.status.pid
        job = asyncio.create_task(facts_of(engine, run_of(tmp_path)))
        for _ in range(500):
            if engine.status.loaded_model is not None:
                break
            await asyncio.sleep(0.01)
        await engine.unload()
        assert kinds(await job)[-1] == "succeeded"
        await engine.wait_ready(20)
        assert engine.status.loaded_model is None
        assert engine.status.pid != first
        assert kinds(await facts_of(engine, run_of(tmp_path, job="next")))[:2] == ["model_loading", "model_loaded"]


async def test_engine_crash_at_any_point_is_reported_once_and_next_run_succeeds(tmp_path: Path) -> None:
    points: list[tuple[dict[str, Any], str]] = [
        ({"crash_in": "load", "crash_with": "SIGABRT"}, "loading"),
        *(({"crash_at_step": step, "crash_with": "SIGKILL"}, "drawing") for step in (1, 2, 3)),
        ({"crash_at_step": 4, "crash_with": 1}, "drawing"),
        ({"crash_in": "decode", "crash_with": "SIGSEGV"}, "decoding"),
    ]

    for number, (script, phase) in enumerate(points):
        counter = str(tmp_path / f"count{number}")
        async with running(fake(crash_times=1, counter_path=counter, **script)) as engine:
            death = await dies(engine, spool=tmp_path)
            assert (death.reason, death.phase) == ("engine_crash", phase)
            assert kinds(await facts_of(engine, run_of(tmp_path, attempt=2)))[-1] == "succeeded"


async def test_memory_abort_is_reported_as_out_of_memory(tmp_path: Path) -> None:
    words = "[METAL] Command buffer execution failed: Insufficient Memory (kIOGPUCommandBufferCallbackErrorOutOfMemory)"
    async with running(fake(crash_at_step=3, crash_with="SIGABRT", crash_says=words)) as engine:
        assert (await dies(engine, spool=tmp_path)).reason == "engine_oom"


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ({"hang_in": "load"}, "loading"),
        ({"hang_in": "step"}, "drawing"),
        ({"hang_in": "step", "hang_at_step": 3, "hang_busy": True}, "drawing"),
        ({"hang_in": "decode", "hang_deaf": True}, "decoding"),
    ],
)
async def test_engine_hanging_is_killed_and_replaced(script: dict[str, Any], phase: str, tmp_path: Path) -> None:
    short = replace(FAST, load_s=1.0, first_step_s=1.0, step_floor_s=1.0, decode_s=1.0)
    async with running(fake(short, crash_times=1, counter_path=str(tmp_path / "count"), **script)) as engine:
        await engine.wait_ready(20)
        first = engine.status.pid
        death = await dies(engine, spool=tmp_path)
        assert (death.reason, death.phase) == ("engine_timeout", phase)
        assert first is not None
        assert not alive(first)
        assert kinds(await facts_of(engine, run_of(tmp_path, attempt=2)))[-1] == "succeeded"


@pytest.mark.parametrize("script", [{"garbage_at_step": 2}, {"oversized_frame": True}, {"partial_frame": True}])
async def test_engine_with_invalid_output_is_replaced(
    script: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(fake(crash_times=1, counter_path=str(tmp_path / "count"), **script)) as engine:
        assert (await dies(engine, spool=tmp_path)).reason == "engine_crash"
        assert kinds(await facts_of(engine, run_of(tmp_path, attempt=2)))[-1] == "succeeded"
    assert "a red circle" not in caplog.text


async def test_engine_protocol_is_unaffected_by_slow_pipe(tmp_path: Path) -> None:
    async with running(fake(slow_stdout=0.0005)) as engine:
        facts = await facts_of(engine, run_of(tmp_path, plan(previews=1)))
        assert kinds(facts)[-1] == "succeeded"


async def test_job_cancel_takes_effect_within_a_step_and_keeps_engine_child(tmp_path: Path) -> None:
    async with running(fake(step_seconds=0.05)) as engine:

        async def stop(fact: Fact) -> None:
            if isinstance(fact, StepDone) and fact.step == STEP:
                await engine.cancel("another job")
                await engine.cancel("job1")
                await engine.cancel("job1")

        facts = await facts_of(engine, run_of(tmp_path, plan(steps=100)), stop)
        assert isinstance(facts[-1], Cancelled)
        assert sum(isinstance(fact, StepDone) for fact in facts) <= STEP + 2
        first = engine.status.pid
        assert kinds(await facts_of(engine, run_of(tmp_path, job="job2")))[0] == "step_done"
        assert engine.status.pid == first


@pytest.mark.parametrize("deaf", [False, True])
async def test_job_that_does_not_stop_is_killed_and_ends_as_cancelled(deaf: bool, tmp_path: Path) -> None:
    options = fake(replace(FAST, cancel_grace_s=0.2), hang_in="load", hang_deaf=deaf)
    async with running(options) as engine:

        async def stop(fact: Fact) -> None:
            await engine.cancel("job1")

        facts = await facts_of(engine, run_of(tmp_path), stop)
        assert kinds(facts) == ["model_loading", "cancelled"]


async def test_job_cancelled_while_waiting_never_reaches_an_engine(tmp_path: Path) -> None:
    async with running(fake(start_seconds=60)) as engine:
        task = asyncio.create_task(facts_of(engine, run_of(tmp_path)))
        await asyncio.sleep(0)
        await engine.cancel("job1")
        assert kinds(await task) == ["cancelled"]


async def test_engine_child_is_replaced_when_unresponsive_after_cancel(tmp_path: Path) -> None:
    options = fake(
        replace(FAST, ping_s=0.3),
        step_seconds=0.05,
        hang_in="ping",
        crash_times=1,
        counter_path=str(tmp_path / "count"),
    )
    async with running(options) as engine:

        async def stop(fact: Fact) -> None:
            await engine.cancel("job1")

        assert isinstance((await facts_of(engine, run_of(tmp_path, plan(steps=50)), stop))[-1], Cancelled)
        assert kinds(await facts_of(engine, run_of(tmp_path, job="job2")))[0] == "model_loading"


async def test_job_is_stopped_when_its_caller_disconnects_and_next_job_gets_only_its_own_events(tmp_path: Path) -> None:
    async with running(fake(step_seconds=0.02)) as engine:
        async with aclosing(engine.run(run_of(tmp_path, plan(steps=1000)))) as stream:
            async for fact in stream:
                if fact.kind == "step_done":
                    break
        facts = await facts_of(engine, run_of(tmp_path, plan(steps=3), job="job2"))
        assert kinds(facts) == ["step_done"] * 3 + ["decoding", "drawn", "succeeded"]


async def test_engine_runs_two_concurrent_jobs_in_sequence(tmp_path: Path) -> None:
    async with running(fake()) as engine:
        both = await asyncio.gather(*(facts_of(engine, run_of(tmp_path, job=job)) for job in ("a", "b")))
        assert [kinds(facts)[-1] for facts in both] == ["succeeded", "succeeded"]


async def test_engine_start_failing_repeatedly_opens_circuit_breaker_with_reason(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    options = replace(
        fake(start_fails=True, crash_times=6, counter_path=str(tmp_path / "count")),
        backoff_s=(0.0, 1.0, 2.0, 4.0),
        sleep=sleep,
        clock=lambda: 0.0,
    )
    async with running(options) as engine:
        await is_down(engine)
        reason = engine.status.reason
        assert reason is not None
        assert "5 times" in reason
        assert "exit code 1" in reason
        assert not engine.status.works
        await engine.wait_ready(20)
        assert engine.status.reason is None
        assert pauses == [0.0, 0.0, 1.0, 2.0, 4.0, 60.0, 60.0]


async def test_engine_deaths_between_successful_jobs_are_no_crash_loop(tmp_path: Path) -> None:
    """R-16: three restarts in a minute are free, the next one waits."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    options = replace(fake(crash_at_step=3), backoff_s=(0.0, 1.0, 2.0), sleep=sleep, clock=lambda: 0.0)
    async with running(options) as engine:
        for number in range(4):
            await dies(engine, spool=tmp_path)
            facts = await facts_of(engine, run_of(tmp_path, plan(steps=1), job=f"good{number}"))
            assert kinds(facts)[-1] == "succeeded"
        assert pauses == [0.0, 0.0, 0.0, 0.0, 1.0]


async def test_engine_failures_far_apart_leave_circuit_breaker_closed(tmp_path: Path) -> None:
    now = iter(range(0, 10_000, 100))
    options = replace(
        fake(start_fails=True, crash_times=7, counter_path=str(tmp_path / "count")), clock=lambda: float(next(now))
    )
    async with running(options) as engine:
        await engine.wait_ready(30)
        assert next(now) == 700


async def test_engine_with_missing_interpreter_fails_like_any_other() -> None:
    engine = Engine(replace(FAST, python="/nowhere/python"))
    await engine.start()
    await is_down(engine)
    assert "nowhere" not in str(engine.status.reason)
    await engine.stop()


async def test_engine_child_is_killed_when_not_ready_in_time() -> None:
    engine = Engine(fake(replace(FAST, start_s=0.2, circuit_failures=1, circuit_retry_s=60), hang_in="start"))
    await engine.start()
    await is_down(engine)
    assert "in time" in str(engine.status.reason)
    await engine.stop()


@pytest.mark.parametrize("script", [{}, {"hang_in": "step", "hang_busy": True, "hang_deaf": True}])
async def test_engine_stop_ends_working_child_and_its_run(script: dict[str, Any], tmp_path: Path) -> None:
    async with running(fake(step_seconds=0.02, **script)) as engine:
        await engine.wait_ready(20)
        pid = engine.status.pid
        begun = asyncio.Event()

        async def note(fact: Fact) -> None:
            begun.set()

        task = asyncio.create_task(facts_of(engine, run_of(tmp_path, plan(steps=10_000)), note))
        await begun.wait()
        await engine.stop()
        with pytest.raises(EngineStopped):
            await task
        assert pid is not None
        assert await gone(pid, 1)


async def test_engine_stop_during_start_leaves_no_process() -> None:
    before = asyncio.all_tasks()
    for turns in range(4):
        engine = Engine(fake())
        await engine.start()
        for _ in range(turns):
            await asyncio.sleep(0.001)
        await engine.stop()
        assert engine.status.state == "stopped"
    assert asyncio.all_tasks() == before


async def test_engine_exception_is_logged_but_never_sent_to_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for phase, code in (("load", "model_load_failed"), ("step", "internal_error")):
        async with running(fake(raise_in=phase)) as engine:
            failed = (await facts_of(engine, run_of(tmp_path)))[-1]
            assert isinstance(failed, Failed)
            assert failed.code == code
            assert "secret" not in failed.message
            await engine.wait_ready(20)
    assert "/secret/path" in caplog.text
    assert "a red circle" not in caplog.text


async def test_model_missing_and_out_of_memory_have_their_own_error_codes(tmp_path: Path) -> None:
    async with running(fake(oom_at_step=2)) as engine:
        failed = (await facts_of(engine, run_of(tmp_path)))[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "engine_oom"
    async with running(fake(raise_in="load")) as engine:
        failed = (await facts_of(engine, run_of(tmp_path, model_path=str(tmp_path / "no"))))[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "model_missing"
