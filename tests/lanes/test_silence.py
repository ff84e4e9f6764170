"""A watchdog never measures its own silence (R-07, R-15), and who was left behind is ended (R-02)."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.child_notes import ChildNotes, _of_ps, identity
from engine.clock import Alarm, patience
from engine.protocol import Cancelled
from gateway.framing import ended_child, started_child
from gateway.jobs.facts import PageRead
from gateway.jobs.plans import Ocr
from gateway.ocr.client import OcrClient
from tests.support.engine import FAST, alive, facts_of, fake, plan, run_of, running
from tests.support.live import Live, live
from tests.support.loops import on_both_loops
from tests.support.ocr import OBEDIENT, script

ROOT = Path(__file__).parents[2]


def paused(gateway: Live, seconds: float) -> None:
    """As ^Z and fg do, or a machine that sleeps: the gateway alone stands still."""
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    gateway.process.send_signal(signal.SIGCONT)


def engine_of(gateway: Live) -> int:
    """The engine's process id."""
    assert gateway.process is not None
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    found = [int(pid) for pid in children if b"-m\0engine\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(found) == 1
    return found[0]


def submitted(gateway: Live, **changes: Any) -> str:
    body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, **changes}
    answer = httpx.post(f"{gateway.url}/api/v1/generate", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def shown(gateway: Live, job: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{gateway.url}/api/v1/jobs/{job}?images=false", timeout=30).json()
    return found


def until(gateway: Live, job: str, status: str, within_s: float = 40) -> dict[str, Any]:
    end = time.monotonic() + within_s
    while (found := shown(gateway, job))["status"] != status:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


# ---- the clock ---------------------------------------------------------------------------------


@on_both_loops
async def test_deadline_does_not_count_the_time_the_event_loop_was_blocked() -> None:
    rang: list[str] = []
    alarm = Alarm(0.7, rang.append, "alarm")
    async with patience(1.0):
        await asyncio.sleep(0.1)
        time.sleep(2.5)  # noqa: ASYNC251
        await asyncio.sleep(0.2)
        assert rang == []
    alarm.cancel()
    with pytest.raises(TimeoutError):
        async with patience(0.1):
            await asyncio.sleep(30)


@on_both_loops
async def test_pipe_data_already_waiting_is_read_before_a_deadline_counts() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.setblocking(False)
    async with patience(0.3):
        sent = theirs.send(b"x" * 600_000)
        waiting = asyncio.create_task(reader.readexactly(sent))
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251  # no gap, but late
        await waiting
    writer.close()
    await writer.wait_closed()
    theirs.close()


async def test_alarm_restarted_counts_from_then_and_alarm_cancelled_never_fires() -> None:
    rang: list[str] = []
    first, second, third = (Alarm(0.3, rang.append, name) for name in ("first", "second", "third"))
    second.cancel()
    third.restart(0.1)
    await asyncio.sleep(0.2)
    first.restart(0.4)
    assert rang == ["third"]
    second.restart(0.0)
    await asyncio.sleep(0.2)
    assert rang == ["third"]
    await asyncio.sleep(0.4)
    assert rang == ["third", "first"]


def test_deadline_classes_all_use_the_engine_clock() -> None:
    """Who waits for others does so by `engine.clock`; what else is timed ends nobody's work."""
    timed = {"asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for"}
    allowed = {
        "engine/clock.py",
        "gateway/http/accepting.py call_later",  # until a connection is taken again
        "gateway/http/half_close.py call_later",  # looks whether a client has left
        "gateway/http/heap.py call_later",  # gives memory back
        "gateway/ocr/client.py call_later",  # lets an idle child go
        "gateway/http/server.py call_later",  # a connection that was refused
        "adapters/sdapi/tasks.py",  # how long an interrupt is looked at
    }
    found = set()
    for file in [f for room in ("engine", "gateway", "adapters") for f in (ROOT / room).rglob("*.py")]:
        name = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and name not in allowed:
                called = ast.unparse(node.func)
                if called in timed:
                    found.add(name)
                if called.endswith((".call_later", ".call_at")) and f"{name} call_later" not in allowed:
                    found.add(name)
    assert found == set()


# ---- the engine --------------------------------------------------------------------------------


def test_engine_that_worked_while_the_gateway_was_suspended_is_not_killed(tmp_path: Path) -> None:
    script = {"step_seconds": 0.4}
    with live(tmp_path, fake_script=script, config={"engine": {"step_floor_s": 1.5, "load_s": 1.5}}) as gateway:
        engine = engine_of(gateway)
        job = submitted(gateway, steps=16)
        until(gateway, job, "generating")
        time.sleep(0.8)
        paused(gateway, 4)
        assert until(gateway, job, "completed")["attempt"] == 1
        assert engine_of(gateway) == engine


def test_engine_that_hangs_is_replaced_even_if_the_gateway_was_suspended(tmp_path: Path) -> None:
    script = {"hang_in": "load", "crash_times": 1, "counter_path": str(tmp_path / "count")}
    with live(tmp_path, fake_script=script, config={"engine": {"load_s": 2.0}}) as gateway:
        engine = engine_of(gateway)
        job = submitted(gateway)
        until(gateway, job, "generating")
        paused(gateway, 4)
        assert until(gateway, job, "completed", within_s=20)["attempt"] == 2
        assert not alive(engine)


@on_both_loops
async def test_engine_client_reads_facts_waiting_in_the_pipe_before_a_deadline_counts(tmp_path: Path) -> None:
    options = fake(replace(FAST, step_floor_s=0.5, load_s=5.0, step_factor=1.0), step_seconds=0.1)
    async with running(options) as engine:

        async def stand_still(fact: Any) -> None:
            if fact.kind == "step_done" and fact.step in (3, 12):
                time.sleep(0.9 if fact.step == 3 else 2.5)  # noqa: ASYNC251

        facts = await facts_of(engine, run_of(tmp_path, plan(steps=20)), stand_still)
        assert facts[-1].kind == "succeeded"
        assert engine.status.deaths == 0


# ---- everybody else ----------------------------------------------------------------------------


def test_requests_sent_while_the_gateway_was_suspended_are_answered(tmp_path: Path) -> None:
    config = {"http": {"header_deadline_s": 2.0, "body_deadline_s": 2.0, "keep_alive_s": 2}}
    with live(tmp_path, config=config) as gateway:
        address = ("127.0.0.1", gateway.port)
        body = json.dumps({"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}).encode()
        head = f"Host: 127.0.0.1:{gateway.port}\r\nConnection: close\r\n".encode()
        post = b"POST /api/v1/generate HTTP/1.1\r\n" + head + b"Content-Type: application/json\r\n"
        post += b"Content-Length: %d\r\n\r\n" % len(body)
        with (
            httpx.Client(base_url=gateway.url, timeout=20) as kept,
            socket.create_connection(address, 20) as heads,
            socket.create_connection(address, 20) as bodies,
        ):
            assert kept.get("/health/live").status_code == 200
            heads.sendall(b"GET /health/live HTTP/1.1\r\n")
            bodies.sendall(post + body[:10])
            time.sleep(0.5)
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGSTOP)
            time.sleep(4)
            heads.sendall(head + b"\r\n")
            bodies.sendall(body[10:])
            gateway.process.send_signal(signal.SIGCONT)
            for client in (heads, bodies):
                assert b" 200 " in client.makefile("rb").readline()
            assert kept.get("/health/live").status_code == 200


async def test_ocr_process_is_not_killed_when_the_gateway_itself_was_suspended() -> None:
    client = OcrClient(replace(OBEDIENT, page_s=2.0))
    pages = []
    reading = client.read(Ocr(document="a" * 64, pages=(1, 2, 3)), script("page", "wait", "wait"), 0)
    async for fact in reading:
        if isinstance(fact, PageRead):
            pages.append(fact.page)
            if pages == [0]:
                time.sleep(4)  # noqa: ASYNC251
    assert pages == [0, 1, 2]
    await client.close()


# ---- who was left behind -----------------------------------------------------------------------


def test_an_engine_that_was_stopped_when_its_gateway_was_killed_is_ended_at_the_next_start(tmp_path: Path) -> None:
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.2}).start()
    assert gateway.process is not None
    left = engine_of(gateway)
    job = submitted(gateway, steps=8)
    until(gateway, job, "generating")
    os.kill(left, signal.SIGSTOP)
    gateway.process.kill()
    gateway.process.wait()
    gateway.log.close()
    time.sleep(0.5)
    assert alive(left)
    again = Live(tmp_path, fake_script={}).start()
    try:
        assert not alive(left)
        until(again, job, "completed")
        assert [file.name for file in (tmp_path / "data" / "children").iterdir()] == [f"{engine_of(again)}.json"]
    finally:
        again.stop()
    assert list((tmp_path / "data" / "children").iterdir()) == []


async def test_process_is_ended_only_if_it_is_the_one_recorded(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.stdin.read()")
    children = [await started_child(*command, notes=tmp_path, env={}, is_heard=False) for _ in range(3)]
    left, reused, other = children
    known = identity(reused.pid)
    assert known is not None
    (tmp_path / f"{reused.pid}.json").write_text(json.dumps(asdict(replace(known, started="earlier"))))
    (tmp_path / f"{other.pid}.json").write_text(json.dumps(asdict(replace(known, pid=other.pid, command="sh"))))
    (tmp_path / "0.json").write_text("no note")
    os.kill(left.pid, signal.SIGSTOP)
    assert await asyncio.to_thread(ChildNotes(tmp_path).kill_leftovers) == [left.pid]
    assert await left.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
    assert reused.returncode is None
    assert other.returncode is None
    for child in children:
        await ended_child(child, tmp_path)


def test_process_is_identified_by_its_start_time_on_systems_without_proc() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        first = _of_ps(child.pid)
        if first is None:
            pytest.skip("there is no ps here")
        assert "sys.stdin.read()" in first.command
        assert len(first.started.split()) == 5
        assert _of_ps(child.pid) == first
    finally:
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
    assert _of_ps(child.pid) is None


# ---- cancel where MLX cannot be left -----------------------------------------------------------


def cancelled_s(gateway: Live, job: str) -> float:
    began = time.monotonic()
    answer = httpx.delete(f"{gateway.url}/api/v1/jobs/{job}", timeout=30)
    assert answer.json()["status"] == "cancelled", answer.text
    return time.monotonic() - began


def test_job_cancel_during_a_model_load_acts_at_once_and_does_not_delay_the_next_job(tmp_path: Path) -> None:
    script = {"load_seconds": 30.0}
    with live(tmp_path, fake_script=script) as gateway:
        engine = engine_of(gateway)
        job = submitted(gateway)
        until(gateway, job, "generating")
        time.sleep(0.3)
        assert cancelled_s(gateway, job) < 5
        end = time.monotonic() + 10
        while alive(engine):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_model_load_needed_by_the_next_job_continues_after_a_cancel(tmp_path: Path) -> None:
    with live(tmp_path, fake_script={"load_seconds": 5.0}) as gateway:
        engine = engine_of(gateway)
        job, after = submitted(gateway), submitted(gateway)
        until(gateway, job, "generating")
        time.sleep(0.3)
        assert cancelled_s(gateway, job) < 4
        until(gateway, after, "completed")
        assert engine_of(gateway) == engine


@pytest.mark.parametrize("phase", ["decode", "head"])
def test_job_cancel_is_answered_while_the_engine_cannot_respond(phase: str, tmp_path: Path) -> None:
    script = {"decode_seconds": 4.0} if phase == "decode" else {"step_seconds": 4.0}
    with live(tmp_path, fake_script=script) as gateway:
        job = submitted(gateway, steps=1)
        until(gateway, job, "generating")
        time.sleep(0.5)
        assert cancelled_s(gateway, job) < 3.5
        after = submitted(gateway, steps=1)
        until(gateway, after, "completed")
        assert list((tmp_path / "data" / "spool").iterdir()) == []


async def test_engine_too_slow_to_end_a_cancelled_job_is_replaced(tmp_path: Path) -> None:
    async with running(fake(decode_seconds=60.0)) as engine:
        engine.keeps = lambda run, phase: phase != "decoding"

        async def stop(fact: Any) -> None:
            if fact.kind == "decoding":
                await engine.cancel("job1")

        facts = await facts_of(engine, run_of(tmp_path), stop)
        assert isinstance(facts[-1], Cancelled)
        await engine.wait_ready(20)
        assert (engine.status.starts, engine.status.deaths) == (2, 0)
