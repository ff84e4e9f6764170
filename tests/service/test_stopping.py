"""SIGTERM in every state that could hold the gateway: it leaves in time, with nothing left behind and nothing lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.support.live import ROOT, Live
from tests.support.ocr import OBEDIENT_OCR, script
from tests.support.pipes import Unread
from tests.support.toy_hub import hub_with, toy_model

WITHIN_S = 5.5
"""5 s, and some for a machine that does other things, too."""
SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
HEAD = b"POST /api/v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"

SLOW = """
import importlib, time
from pathlib import Path
import api_main

def slow(module, name):
    original = getattr(module, name)
    def later(*args, **options):
        if Path({flag!r}).exists():
            Path({flag!r} + ".entered").touch()
            time.sleep(60)
        return original(*args, **options)
    setattr(module, name, later)

for module, name in {slowed}:
    slow(importlib.import_module(module), name)
api_main.main()
"""


def slowed(folder: Path, *functions: tuple[str, str]) -> tuple[str, ...]:
    """A program that is the gateway, but for functions that take a minute once the file `slow` is there."""
    return ("-c", SLOW.format(flag=str(folder / "slow"), slowed=list(functions)))


def happens(flag: Path) -> None:
    """Until somebody has made that file."""
    end = time.monotonic() + 20
    while not flag.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.contextmanager
def leaves(gateway: Live) -> Iterator[psutil.Process]:
    """The story begins with a gateway that runs, and ends with one that has to leave in time."""
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    children: list[psutil.Process] = []
    try:
        yield process
        children = process.children(recursive=True)
        began = time.monotonic()
        code = gateway.stop()
        assert time.monotonic() - began < WITHIN_S
        assert code == 0
        assert "Traceback" not in gateway.logged()
        _, alive = psutil.wait_procs(children, timeout=3)
        assert not alive
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if gateway.process.poll() is None:
            gateway.process.kill()
            gateway.process.wait()
        gateway.log.close()


def submit(gateway: Live) -> str:
    job: str = httpx.post(f"{gateway.url}/api/v1/generate", json=SMALL, timeout=20).json()["job_id"]
    return job


def is_drawn_after_a_start(gateway: Live, job: str) -> None:
    """What was acknowledged is there, and done by the next process."""
    gateway.program, gateway.fake_script = ("api_main.py",), {}
    gateway.start()
    end = time.monotonic() + 30
    while httpx.get(f"{gateway.url}/api/v1/jobs/{job}").json()["status"] != "completed":
        assert time.monotonic() < end
        time.sleep(0.05)
    gateway.stop()


def child_of(process: psutil.Process, module: str, but: tuple[int, ...] = ()) -> psutil.Process:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for child in process.children():
            with contextlib.suppress(psutil.Error):
                if module in child.cmdline() and child.pid not in but:
                    return child
        time.sleep(0.02)
    raise AssertionError(f"no {module} was started")


def test_a_stop_with_slow_uploads_and_stuck_readers(tmp_path: Path) -> None:
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.5}).start()
    with contextlib.ExitStack() as held, leaves(gateway):
        job = submit(gateway)
        half = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        half.sendall(HEAD + b"content-length: 100000\r\n\r\n{")
        trickle = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        trickle.sendall(HEAD + b"content-length: 100000\r\n\r\n{")
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.05):
                    trickle.sendall(b" " * 100)

        threading.Thread(target=drip, daemon=True).start()
        held.callback(over.set)
        for _ in range(5):
            stream = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            stream.sendall(b"GET /api/v1/jobs/%s/stream HTTP/1.1\r\nhost: localhost\r\n\r\n" % job.encode())
        time.sleep(0.3)


@pytest.mark.parametrize(
    "script", [{"step_seconds": 30.0}, {"load_seconds": 30.0}, {"hang_in": "step", "hang_deaf": True}]
)
def test_a_stop_while_the_engine_is_suspended_loads_or_does_not_respond(
    tmp_path: Path, script: dict[str, object]
) -> None:
    gateway = Live(tmp_path, fake_script=script).start()
    with leaves(gateway) as process:
        job = submit(gateway)
        time.sleep(0.3)
        if "step_seconds" in script:
            child_of(process, "engine").suspend()
    is_drawn_after_a_start(gateway, job)


def test_a_stop_while_the_engine_starts(tmp_path: Path) -> None:
    gateway = Live(tmp_path, fake_script={"start_seconds": 30.0, "hang_deaf": True}).start(ready=False)
    with leaves(gateway) as process:
        child_of(process, "engine")


def test_a_stop_while_the_store_is_opened(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    gateway = Live(tmp_path, program=slowed(tmp_path, ("gateway.store.database", "open_checked")))
    starting = threading.Thread(target=_try, args=(gateway,))
    starting.start()
    happens(tmp_path / "slow.entered")
    with leaves(gateway):
        pass
    starting.join(10)


def _try(gateway: Live) -> None:
    with contextlib.suppress(AssertionError):
        gateway.start()


@pytest.mark.parametrize(
    "function",
    [("gateway.files.folder", "write_atomic"), ("gateway.store.rows", "insert")],
)
def test_a_stop_while_a_disk_write_takes_a_minute(tmp_path: Path, function: tuple[str, str]) -> None:
    gateway = Live(tmp_path, program=slowed(tmp_path, function)).start()
    with leaves(gateway):
        job = submit(gateway)
        time.sleep(0.3)
        (tmp_path / "slow").touch()
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(f"{gateway.url}/api/v1/generate", json=SMALL, timeout=0.5)
        happens(tmp_path / "slow.entered")
    is_drawn_after_a_start(gateway, job)


def test_a_stop_during_a_backup(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    gateway = Live(tmp_path, program=slowed(tmp_path, ("gateway.store.backups", "sync_path"))).start()
    with leaves(gateway):
        happens(tmp_path / "slow.entered")


def test_a_stop_while_the_decoder_is_stopped(tmp_path: Path) -> None:
    gateway = Live(tmp_path).start()
    png = BytesIO()
    Image.effect_noise((512, 512), 50).save(png, "PNG")

    def upload(timeout_s: float) -> None:
        with contextlib.suppress(httpx.HTTPError):
            body = {"image": (("a.png", png.getvalue(), "image/png"))}
            httpx.post(f"{gateway.url}/v1/images/edits", files=body, data={"prompt": "x"}, timeout=timeout_s)

    with leaves(gateway) as process:
        upload(20)
        child_of(process, "gateway.images.decoder_child").suspend()
        sending = threading.Thread(target=upload, args=(20,))
        sending.start()
        time.sleep(0.3)
        assert httpx.get(f"{gateway.url}/health/live", timeout=20).status_code == 200
    sending.join(20)


def test_a_stop_during_a_download(tmp_path: Path) -> None:
    """Its child hears nothing; what came is kept, and the next process goes on with it."""
    model, big = "flux2-klein-4b", "transformer/model.safetensors"
    with hub_with([model], toy_model(big), tmp_path) as hub:
        hub.hold_at[big] = 500_000
        models = {"cache_dir": str(tmp_path / "models"), "auto_download": True}
        gateway = Live(tmp_path, config={"models": models}).start()
        with leaves(gateway) as process:
            job: str = httpx.post(f"{gateway.url}/api/v1/models/{model}/pull", timeout=20).json()["job_id"]
            assert hub.held.wait(30)
            child_of(process, "gateway.downloads.child").suspend()
        hub.go_on.set()
        is_drawn_after_a_start(gateway, job)


def test_a_stop_during_ocr(tmp_path: Path) -> None:
    """One reads a page, the other, which looks at what comes in, is stopped."""
    gateway = Live(tmp_path, program=OBEDIENT_OCR).start()
    documents = [script({"do": "sleep", "once": str(tmp_path / "read")}), script("page")]

    def read(document: bytes) -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{gateway.url}/v1/images/ocr", files={"image": ("a.pdf", document)}, timeout=20)

    with ThreadPoolExecutor() as threads, leaves(gateway) as process:
        threads.submit(read, documents[0])
        happens(tmp_path / "read")
        checker = child_of(process, "tests.support.ocr_child")
        checker.suspend()
        threads.submit(read, documents[1])
        time.sleep(0.3)


def test_a_stop_with_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    gateway = Unread(tmp_path, fake_script={"step_seconds": 30.0})
    gateway.start()
    with leaves(gateway):
        job = submit(gateway)
        time.sleep(0.3)
    os.close(gateway.reading)
    is_drawn_after_a_start(Live(tmp_path), job)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    gateway = Live(tmp_path, fake_script={"hang_in": "step", "hang_deaf": True}).start()
    with leaves(gateway) as process:
        submit(gateway)
        time.sleep(0.3)
        child_of(process, "engine").suspend()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)


def test_a_process_in_which_no_python_runs_is_ended_by_the_kernel() -> None:
    program = """
import ctypes, os, signal
from gateway import shutdown as stopping
stopping.LAST_S = 0.2
budget = stopping.Stopping(0.1)
budget.leave_s = 0.1
budget.begin()
ctypes.PyDLL(None).sleep(60)  # with the interpreter's lock held
"""
    held = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=False)
    assert held.returncode == -signal.SIGALRM


def test_the_forced_exit_ends_stopped_children_too() -> None:
    program = """
import os, signal, subprocess, sys, time
from gateway import shutdown as stopping
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
os.kill(child.pid, signal.SIGSTOP)
print(child.pid, flush=True)
stopping.leave(7)
"""
    left = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, stdout=subprocess.PIPE, check=False)
    assert left.returncode == 7
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(left.stdout))
        assert psutil.wait_procs([child], timeout=5)[0] or child.status() == psutil.STATUS_ZOMBIE
