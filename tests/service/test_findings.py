"""What a running gateway says is wrong with itself, and what doctor makes of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway import logs
from gateway.findings import _of_process
from gateway.http import open_files as descriptors
from tests.support.live import ROOT, Live, live

SMALL: dict[str, Any] = {"prompt": "x", "width": 64, "height": 64, "steps": 1}


def findings(gateway: Live) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{gateway.url}/api/v1/findings", timeout=30).raise_for_status()
    return {finding["what"]: finding for finding in answer.json()["findings"]}


def found(gateway: Live, subject: str) -> dict[str, Any]:
    end = time.monotonic() + 30
    while subject not in (seen := findings(gateway)):
        assert time.monotonic() < end, seen
        time.sleep(0.05)
    return seen[subject]


def doctor(gateway: Live) -> tuple[int, dict[str, dict[str, Any]]]:
    command = [sys.executable, "api_main.py", "doctor", "--json", "--config", str(gateway.folder / "config.yaml")]
    environment = {**os.environ, "MFLUX_API_PORT": str(gateway.port)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, env=environment)
    return done.returncode, {row["what"]: row for row in json.loads(done.stdout)}


def test_a_healthy_gateway_has_no_findings_and_doctor_names_faults(tmp_path: Path) -> None:
    with live(tmp_path) as gateway:
        assert findings(gateway) == {}
        code, rows = doctor(gateway)
        assert (code, rows["running"]["health"]) == (0, "ok")
        (tmp_path / "output").rename(tmp_path / "away")
        (tmp_path / "output").write_text("in the way")
        place = found(gateway, "storage")
        assert "output folder" in place["found"]
        assert place["health"] == "broken"
        code, rows = doctor(gateway)
        assert code == 1
        assert rows["running: storage"]["health"] == "broken"
        assert rows["running: storage"]["found"] == place["found"]
        assert str(tmp_path) not in json.dumps(findings(gateway)), "no path is told"
        (tmp_path / "output").unlink()
        (tmp_path / "away").rename(tmp_path / "output")
        while findings(gateway):
            time.sleep(0.05)


def test_an_engine_that_is_down_or_died_a_pause_and_a_decoder_that_died_are_named(tmp_path: Path) -> None:
    with live(tmp_path) as gateway:
        httpx.post(f"{gateway.url}/api/v1/queue/pause").raise_for_status()
        assert found(gateway, "queue")["health"] == "broken"
        httpx.post(f"{gateway.url}/api/v1/queue/resume").raise_for_status()
        assert gateway.process is not None
        children = psutil.Process(gateway.process.pid).children()
        (engine,) = [child for child in children if "engine" in child.cmdline()]
        engine.send_signal(signal.SIGKILL)
        assert "1 times" in found(gateway, "engine")["found"]
        gateway.wait_for("/health/ready")
        assert found(gateway, "engine")["health"] == "note"
    (tmp_path / "down").mkdir()
    with live(tmp_path / "down", ready=False, fake_script={"start_fails": True}) as gateway:
        while (seen := findings(gateway)).get("engine", {}).get("health") != "broken":
            time.sleep(0.05)
        assert seen["engine"]["remedy"]


def test_a_damaged_record_is_named_with_its_repair(tmp_path: Path) -> None:
    with live(tmp_path) as gateway:
        job = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=SMALL, timeout=30)
        assert job.status_code == 200
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite3") as db:
        db.execute("UPDATE jobs SET plan = replace(plan, 'x', 'y')")
    db.close()
    with live(tmp_path) as gateway:
        records = found(gateway, "job records")
        assert records["found"].startswith("1 damaged")
        assert "doctor --repair" in records["remedy"]
        code, rows = doctor(gateway)
        assert rows["running: job records"]["health"] == "note"
        assert code == 0


LIMITS: list[tuple[str, Callable[[pytest.MonkeyPatch], None], str]] = [
    ("open files", lambda patch: patch.setattr(descriptors, "limit", lambda: 256), "ulimit -n"),
    ("log", lambda patch: patch.setattr(logs, "dropped", lambda: 3), "stderr"),
]


@pytest.mark.parametrize(("subject", "spoil", "remedy"), LIMITS, ids=[row[0] for row in LIMITS])
def test_few_files_and_dropped_records_are_named(
    monkeypatch: pytest.MonkeyPatch, subject: str, spoil: Callable[[pytest.MonkeyPatch], None], remedy: str
) -> None:
    from gateway.app import build_core
    from gateway.settings import Settings

    core = build_core(Settings())
    spoil(monkeypatch)
    (finding,) = _of_process(core)
    assert finding.what == subject
    assert remedy in finding.remedy
