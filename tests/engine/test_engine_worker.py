"""The child by itself: it leaves when its parent does, and only reports reach the wire."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine import worker
from engine.backends.fake import FakeScript
from engine.protocol import (
    Cancel,
    JobReport,
    Memory,
    ModelLoaded,
    ModelLoading,
    Ping,
    Pong,
    Ready,
    Run,
    decode_report,
    encode,
)
from tests.support.engine import alive, plan, run_of

ROOT = Path(__file__).resolve().parents[2]

PARENT = """
import asyncio, pathlib, sys
from dataclasses import replace
from engine.client import Engine, EngineOptions
from engine.protocol import Run
async def main():
    engine = Engine(EngineOptions(backend="fake", fake_script=sys.argv[1]))
    await engine.start()
    async for fact in engine.run(Run.model_validate_json(sys.argv[2])):
        print(engine.status.pid, fact.kind, flush=True)
asyncio.run(main())
"""


def child(stdin: bytes, **script: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the child on these commands, until it leaves at their end."""
    arguments = [sys.executable, "-m", "engine", "--backend", "fake", "--fake-script"]
    script_json = FakeScript(**script).model_dump_json()
    return subprocess.run(
        [*arguments, script_json], input=stdin, capture_output=True, cwd=ROOT, timeout=30, check=False
    )


def wait_until_gone(pid: int, within_s: float) -> float:
    """Seconds until the process ended. Fails the test where it does not."""
    began = time.monotonic()
    while alive(pid):
        assert time.monotonic() - began < within_s, "it still lives"
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("script", [{"step_seconds": 0.02}, {"hang_in": "step", "hang_busy": True}])
def test_engine_child_exits_during_drawing_when_parent_is_killed(script: dict[str, Any], tmp_path: Path) -> None:
    run = run_of(tmp_path, plan(steps=100_000)).model_dump_json()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, FakeScript(**script).model_dump_json(), run],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
        while words[1] != b"model_loaded":
            words = parent.stdout.readline().split()
        pid = int(words[0])
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        wait_until_gone(pid, 5)


def test_engine_reports_every_step_and_memory_once_a_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    said: list[Any] = []
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    wire = cast(worker.Wire, SimpleNamespace(send=lambda *messages: said.extend(messages)))
    held = worker.ActiveJob(run_of(tmp_path, plan(steps=8)))
    memory = Memory(active_bytes=1, peak_bytes=2)
    watcher = worker._Watcher(wire, held, 0, 0, lambda: memory, worker.DecodingThread())
    for step in range(1, 9):
        now[0] += 0.4
        watcher.step(step, 8, 0.4, bytes)
    assert [one.fact.step for one in said if isinstance(one, JobReport)] == [*range(1, 9)]
    assert [one.after for one in said if isinstance(one, Memory)] == ["step"] * 2


def test_engine_child_exits_at_end_of_command_input() -> None:
    done = child(b"")
    assert done.returncode == 3


def test_engine_garbage_on_stdin_is_ignored_and_not_logged() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "--backend", "fake"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\xff\xfe\n{}\n" + b'{"kind":"run","plan":"my secret prompt"}\n')
    process.stdin.write(encode(Cancel(job="unknown")) + encode(Ping(nonce=5)))
    process.stdin.flush()
    assert isinstance(decode_report(process.stdout.readline()), Ready)
    assert decode_report(process.stdout.readline()) == Pong(nonce=5)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 3
    assert b"no command" in errors
    assert b"secret" not in errors


def test_engine_prints_go_to_stderr_and_never_to_the_protocol(tmp_path: Path) -> None:
    code = """
import os, sys
from engine import backends, __main__ as main
from engine.backends.fake import FakeBackend
class Loud(FakeBackend):
    def load(self, model):
        print("a stray print", flush=True)
        os.system("echo a stray child")
        super().load(model)
backends.FakeBackend = Loud
sys.argv = ["engine", "--backend", "fake"]
main.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(run_of(tmp_path)))
        process.stdin.flush()
        kinds = []
        while "succeeded" not in kinds:
            report = decode_report(process.stdout.readline())
            if isinstance(report, JobReport):
                kinds.append(report.fact.kind)
        _, errors = process.communicate(timeout=10)
        assert errors.count(b"a stray") == 2


def test_engine_ends_when_its_device_answers_no_more_after_a_failed_job(tmp_path: Path) -> None:
    """As with CUDA after an illegal access: each further call fails until the process ends."""
    code = """
import sys
from engine import backends, __main__ as main
from engine.backends.fake import FakeBackend
class Broken(FakeBackend):
    failures = 0
    def denoise(self, *given):
        Broken.failures += 1
        raise RuntimeError("cudaStreamSynchronize(stream) failed: an illegal memory access was encountered")
    def check_device(self):
        if Broken.failures == 2:
            raise RuntimeError("CUDA is lost")
backends.FakeBackend = Broken
sys.argv = ["engine", "--backend", "fake"]
main.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ends = []
        for job in ("first", "second"):
            process.stdin.write(encode(run_of(tmp_path, job=job)))
            process.stdin.flush()
            while not isinstance(report := decode_report(process.stdout.readline()), JobReport) or isinstance(
                report.fact, ModelLoading | ModelLoaded
            ):
                pass
            ends.append((report.job, report.fact.kind))
        assert ends == [("first", "failed"), ("second", "failed")], "the device still answers after the first"
        assert process.wait(timeout=10) == 1  # its input is open: it ends by itself
        assert b"CUDA is lost" in process.communicate()[1]


def test_engine_refuses_second_concurrent_job(tmp_path: Path) -> None:
    def job(name: str) -> Run:
        return run_of(tmp_path, plan(steps=3), job=name)

    with subprocess.Popen(
        [sys.executable, "-m", "engine", "--backend", "fake", "--fake-script", json.dumps({"load_seconds": 0.2})],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(job("a")) + encode(job("b")) + encode(Ping(nonce=1)))
        process.stdin.flush()
        reports = []
        while not isinstance(report := decode_report(process.stdout.readline()), Pong):
            reports.append(report)
        process.communicate(timeout=10)
        assert {report.job for report in reports if isinstance(report, JobReport)} == {"a"}


def test_disk_full_is_reported_as_disk_full(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "job1.1.0.ppm.part").symlink_to("/dev/full")
    with subprocess.Popen(
        [sys.executable, "-m", "engine", "--backend", "fake"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(run_of(tmp_path)))
        process.stdin.flush()
        lines = []
        while b'"failed"' not in (line := process.stdout.readline()):
            lines.append(line)
        process.communicate(timeout=10)
        assert b'"code":"disk_full"' in line
        assert not list(tmp_path.iterdir())
