"""Pipes that nobody reads, one after the other: the gateway goes on, and leaves when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from engine.child_notes import ChildNotes
from engine.client import Engine, EngineOptions
from gateway.framing import ended_child, log_stderr, started_child
from gateway.text_output import QueuedOutput, QueuedText
from tests.support.live import ROOT, Live, live
from tests.support.ocr import OBEDIENT_OCR, script
from tests.support.pipes import Unread, filled, pipe
from tests.support.toy_hub import hub_with, toy_model

SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
FREEZE_S = 20.0
"""A gateway that waits for a pipe waits for ever."""


def told(dropped: int) -> bytes:
    return b"%d dropped\n" % dropped


# ---- the queue -----------------------------------------------------------------------------------


def test_log_lines_dropped_from_a_full_pipe_are_counted_and_reported() -> None:
    with pipe() as (reading, writing):
        full = filled(writing)
        output = QueuedOutput(writing, told, max_bytes=2000)
        for n in range(100):
            output.put(b"line %d\n" % n)
        assert not output.flush(0.1)
        got = b""
        while len(got) < full:
            got += os.read(reading, 65536)
        assert output.flush(10)
        output.put(b"after\n")
        assert output.flush(10)
        lines = (got[full:] + os.read(reading, 65536)).decode().splitlines()
        kept = [line for line in lines if line.startswith("line")]
        assert kept == [f"line {n}" for n in range(len(kept))]
        assert 1 < len(kept) < 100
        assert lines == [*kept, f"{100 - len(kept)} dropped", "after"]


def test_the_log_says_how_many_of_its_records_were_dropped() -> None:
    program = """
import logging, sys
from gateway import logs
logs.setup("INFO")
for n in range(20_000):
    logging.getLogger("x").info("line", extra={"n": n, "text": "x" * 500})
print("go", flush=True)
sys.stdin.read()
logs.flush(30)
logging.getLogger("x").info("last")
"""
    asked = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=-1, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert asked.stdout is not None
    assert asked.stdout.readline() == b"go\n"
    said = [json.loads(line) for line in asked.communicate(timeout=60)[1].splitlines()]
    kept = [record["n"] for record in said if record["msg"] == "line"]
    assert kept == list(range(len(kept)))
    gap = said[len(kept)]
    assert (gap["level"], gap["msg"]) == ("warning", f"{20_000 - len(kept)} log records were dropped")
    assert said[-1]["msg"] == "last"


def test_log_lines_of_many_threads_stay_whole_and_none_is_lost() -> None:
    with pipe() as (reading, writing):
        output = QueuedOutput(writing, told)
        text = QueuedText(output, writing)
        got = bytearray()

        def read() -> None:
            while got.count(b"\n") < 400:
                got.extend(os.read(reading, 65536))

        reader = threading.Thread(target=read)
        reader.start()
        writers = [
            threading.Thread(target=lambda n=n: [output.put(b"%d" % n * 3000 + b"\n") for _ in range(100)])
            for n in range(3)
        ]
        for writer in writers:
            writer.start()
        for _ in range(100):
            print("printed", "in", "pieces", file=text)
        for thread in (*writers, reader):
            thread.join(30)
        lines = sorted(set(got.decode().splitlines()))
        assert lines == ["0" * 3000, "1" * 3000, "2" * 3000, "printed in pieces"]


def test_log_output_survives_a_signal_handler_a_fork_and_a_closed_pipe() -> None:
    program = """
import logging, os, signal
from gateway import logs
logs.setup("INFO")
log = logging.getLogger("x")
signal.signal(signal.SIGALRM, lambda *_: log.info("from a handler"))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for n in range(3000):
    log.info("line")
signal.setitimer(signal.ITIMER_REAL, 0)
logs.flush(30)
if (pid := os.fork()) == 0:
    log.info("from a fork")
    logs.flush(5)
    os._exit(0)
os.waitpid(pid, 0)
log.info("last")
raise RuntimeError("the crash itself")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    said = [json.loads(line)["msg"] for line in done.stderr.splitlines() if line.startswith("{")]
    assert said.count("line") == 3000
    assert said[-2:] == ["from a fork", "last"]
    assert done.stderr.endswith("RuntimeError: the crash itself\n")
    gone = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    assert gone.stderr is not None
    gone.stderr.close()
    assert gone.wait(60) == 1


def test_log_pipe_that_nobody_reads_does_not_delay_the_exit_after_a_crash() -> None:
    program = """
import logging
from gateway import logs
logs.setup("INFO")
logging.getLogger("x").info("line")
print("a word on stdout")
raise RuntimeError("the crash itself")
"""
    with pipe() as (_, writing):
        filled(writing)
        stuck = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=writing, stderr=writing)
        assert stuck.wait(FREEZE_S) == 1


# ---- the gateway ---------------------------------------------------------------------------------


def submitted(gateway: Live, **changes: object) -> str:
    job: str = httpx.post(f"{gateway.url}/api/v1/generate", json={**SMALL, **changes}, timeout=FREEZE_S).json()[
        "job_id"
    ]
    return job


def ended(gateway: Live, job: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        status: str = httpx.get(f"{gateway.url}/api/v1/jobs/{job}", timeout=FREEZE_S).json()["status"]
        if status not in ("queued", "generating"):
            return status
        time.sleep(0.02)
    raise AssertionError("the job did not end")


def lives(gateway: Live) -> None:
    assert httpx.get(f"{gateway.url}/health/live", timeout=FREEZE_S).status_code == 200


def test_stderr_that_nobody_reads_loses_only_log_records(tmp_path: Path) -> None:
    """S-40, R-13."""
    gateway = Unread(tmp_path)
    gateway.start()
    try:
        assert [ended(gateway, submitted(gateway)) for _ in range(30)] == ["completed"] * 30
        lives(gateway)
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 5.5
    finally:
        os.close(gateway.reading)


def test_log_records_waiting_for_the_pipe_reader_arrive_when_it_returns(tmp_path: Path) -> None:
    """S-40."""
    gateway = Unread(tmp_path)
    gateway.start()
    job = submitted(gateway)
    assert ended(gateway, job) == "completed"
    got = bytearray()

    def read() -> None:
        while data := os.read(gateway.reading, 65536):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    assert gateway.stop() == 0
    reader.join(20)
    os.close(gateway.reading)
    lines = got[gateway.filling :].decode().splitlines()
    assert lines[0].startswith("mflux-gateway ")
    said = [json.loads(line)["msg"] for line in lines if line.startswith("{")]
    assert {"listening", "started", "succeeded", "stopping"} <= set(said)


def family_of(gateway: Live) -> list[psutil.Process]:
    assert gateway.process is not None
    return psutil.Process(gateway.process.pid).children()


def children_of(gateway: Live) -> dict[str, int]:
    """The gateway's children by what they run."""
    words = {child.pid: child.cmdline() for child in family_of(gateway)}
    return {said[said.index("-m") + 1]: pid for pid, said in words.items()}


def test_engine_process_stopped_blocks_nothing_and_receives_all_input_later(tmp_path: Path) -> None:
    """R-15: its stdin is full for as long as it is stopped."""
    with live(tmp_path, config={"generation": {"max_prompt_bytes": 200_000}}) as gateway:
        engine = children_of(gateway)["engine"]
        os.kill(engine, signal.SIGSTOP)
        job = submitted(gateway, prompt="x" * 100_000)
        time.sleep(0.3)
        lives(gateway)
        os.kill(engine, signal.SIGCONT)
        assert ended(gateway, job) == "completed"


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes neither read nor write."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def goes_on(gateway: Live) -> None:
    """With all that the child which is stopped has no part in."""
    lives(gateway)
    assert ended(gateway, submitted(gateway)) == "completed"


def waits_alone(gateway: Live, child: int, ask: Callable[[Live], int], threads: ThreadPoolExecutor) -> None:
    """What a child does waits for it while it is stopped, and is done afterwards; nothing else waits."""
    with stopped(child):
        asked = threads.submit(ask, gateway)
        time.sleep(0.3)
        goes_on(gateway)
        assert not asked.done()
    assert asked.result() == 200


def test_image_decoder_stopped_blocks_nothing_and_receives_all_input_later(tmp_path: Path) -> None:
    """Its picture is larger than what a pipe holds."""
    png = BytesIO()
    Image.effect_noise((1024, 1024), 50).save(png, "PNG")

    def upload(gateway: Live) -> int:
        files = {"image": ("a.png", png.getvalue(), "image/png")}
        return httpx.post(f"{gateway.url}/api/v1/uploads", files=files, timeout=60).status_code

    with live(tmp_path) as gateway, ThreadPoolExecutor() as threads:
        assert upload(gateway) == 200
        waits_alone(gateway, children_of(gateway)["gateway.images.decoder_child"], upload, threads)


def test_ocr_processes_stopped_block_nothing_and_receive_all_input_later(tmp_path: Path) -> None:
    """The one that counts pages, then the one that reads them; the document is larger than what a pipe holds."""
    document = script({"do": "page", "padding": "x" * 1_000_000})

    def read(gateway: Live) -> int:
        files = {"image": ("a.pdf", document)}
        return httpx.post(f"{gateway.url}/v1/images/ocr", files=files, timeout=60).status_code

    with live(tmp_path, program=OBEDIENT_OCR) as gateway, ThreadPoolExecutor() as threads:
        assert read(gateway) == 200
        readers = [child.pid for child in family_of(gateway) if "tests.support.ocr_child" in child.cmdline()]
        assert len(readers) == 2
        for reader in readers:
            waits_alone(gateway, reader, read, threads)


def test_download_process_stopped_blocks_nothing_and_continues_later(tmp_path: Path) -> None:
    model, big = "flux2-klein-4b", "transformer/model.safetensors"
    models = {"cache_dir": str(tmp_path / "models"), "auto_download": True}
    with hub_with([model], toy_model(big), tmp_path) as hub, live(tmp_path, config={"models": models}) as gateway:
        hub.hold_at[big] = 500_000
        pull: str = httpx.post(f"{gateway.url}/api/v1/models/{model}/pull", timeout=FREEZE_S).json()["job_id"]
        assert hub.held.wait(30)
        with stopped(children_of(gateway)["gateway.downloads.child"]):
            hub.go_on.set()
            goes_on(gateway)
            assert httpx.get(f"{gateway.url}/api/v1/jobs/{pull}", timeout=FREEZE_S).json()["status"] == "generating"
        assert ended(gateway, pull) == "completed"


def test_gateway_suspended_does_not_block_its_engine_permanently(tmp_path: Path) -> None:
    """The engine says more than a pipe holds while nobody reads, on stdout, and goes on with it afterwards."""
    with live(tmp_path, fake_script={"step_seconds": 0.002}) as gateway:
        assert gateway.process is not None
        job = submitted(gateway, steps=50, n=20)
        time.sleep(0.2)
        gateway.process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        gateway.process.send_signal(signal.SIGCONT)
        assert ended(gateway, job) == "completed"


class SlowNotes:
    """Notes of children on a disk that takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.forgotten = threading.Event()
        monkeypatch.setattr(ChildNotes, "forget", self.forget)

    def forget(self, _: int) -> None:
        self.go_on.wait(FREEZE_S)
        self.forgotten.set()


async def test_child_process_end_does_not_wait_for_the_disk_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = SlowNotes(monkeypatch)
    child = await started_child(sys.executable, "-c", "input()", notes=tmp_path, env=os.environ, is_heard=False)
    ending = asyncio.create_task(ended_child(child, tmp_path))
    await asyncio.sleep(0.3)
    assert not notes.forgotten.is_set()
    notes.go_on.set()
    await ending
    assert notes.forgotten.is_set()


async def test_engine_process_end_does_not_wait_for_the_disk_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = SlowNotes(monkeypatch)
    engine = Engine(EngineOptions(backend="fake", notes=tmp_path))
    await engine.start()
    await engine.wait_ready()
    await engine.stop()
    assert not notes.forgotten.is_set()
    notes.go_on.set()
    assert await asyncio.to_thread(notes.forgotten.wait, 20)


async def test_child_process_stderr_is_read_to_its_end_whatever_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A line without end, and lines without number: a parent that stops reading stops the child."""
    program = "import sys; sys.stderr.write('x' * 3_000_000 + '\\n' + 'y\\n' * 5000 + 'last\\n')"
    with caplog.at_level("INFO"):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
        await asyncio.wait_for(log_stderr(child, logging.getLogger("child")), 30)
        assert await child.wait() == 0
    assert caplog.messages[-1] == "last"
