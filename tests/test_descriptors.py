"""Few open files and many clients: jobs are drawn, and who comes too late is told so."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from gateway import descriptors
from gateway.settings import Settings
from tests.live import Live

SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
import api_main
api_main.main()
"""


def limited(folder: Path, soft: int, hard: int) -> Live:
    return Live(folder, program=("-c", LIMITED.format(soft=soft, hard=hard)))


def clients(gateway: Live, count: int, held: contextlib.ExitStack) -> list[socket.socket]:
    socks = [
        held.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20)) for _ in range(count)
    ]
    for sock in socks:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n")  # and no end of the head
    return socks


@pytest.mark.parametrize("most", [128, 256])
def test_jobs_are_drawn_while_hundreds_connect_and_who_is_too_many_is_told(tmp_path: Path, most: int) -> None:
    """S-14."""
    gateway = limited(tmp_path, most, most).start()
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    with httpx.Client(base_url=gateway.url, timeout=30) as known, contextlib.ExitStack() as held:
        assert known.get("/health/live").status_code == 200
        socks = clients(gateway, 300, held)
        jobs = [known.post("/api/v1/generate", json=SMALL).json()["job_id"] for _ in range(5)]
        for job in jobs:
            end = time.monotonic() + 30
            while (status := known.get(f"/api/v1/jobs/{job}").json()["status"]) != "completed":
                assert status in ("queued", "generating")
                assert time.monotonic() < end
        used = process.cpu_times().user
        answers = []
        for sock in socks:
            with contextlib.suppress(OSError):
                answers.append(sock.recv(4096).lower())
        refused = [answer for answer in answers if answer.startswith(b"http/1.1 503 ")]
        assert len(refused) > 300 - most
        assert all(b"\r\nretry-after: " in answer for answer in refused)
        assert process.cpu_times().user - used < 8
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{gateway.url}/health/ready", timeout=20).status_code == 200:
                break
        assert time.monotonic() < end
        time.sleep(0.1)
    assert gateway.stop() == 0
    told = [json.loads(line) for line in gateway.logged().splitlines() if "open files are limited" in line]
    assert len(told) == 1
    assert told[0]["max_connections"] < 1024
    assert "internal_error" not in gateway.logged()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_soft_limit_is_raised_for_the_gateway_and_its_children(tmp_path: Path) -> None:
    gateway = limited(tmp_path, 128, 4096).start()
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    for one in (process, *process.children()):
        assert one.rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)
    assert gateway.stop() == 0
    assert "open files are limited" not in gateway.logged()


@pytest.mark.skipif(sys.platform != "linux", reason="changes the limit of another process")
def test_a_process_that_is_out_of_descriptors_waits_for_them_and_fails_no_job(tmp_path: Path) -> None:
    gateway = Live(tmp_path).start()
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    with httpx.Client(base_url=gateway.url, timeout=30) as known, contextlib.ExitStack() as held:
        job, second = (known.post("/api/v1/generate", json=SMALL).json()["job_id"] for _ in range(2))
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), before[1]))
        began, used = time.monotonic(), process.cpu_times()
        clients(gateway, 40, held)
        time.sleep(2)
        now = process.cpu_times()
        assert now.user + now.system - used.user - used.system < 0.7 * (time.monotonic() - began)
        process.rlimit(psutil.RLIMIT_NOFILE, before)
        for one in (job, second):
            end = time.monotonic() + 30
            while (status := known.get(f"/api/v1/jobs/{one}").json()["status"]) != "completed":
                assert status in ("queued", "generating")
                assert time.monotonic() < end
                time.sleep(0.05)
    assert httpx.get(f"{gateway.url}/health/ready", timeout=20).status_code == 200
    assert gateway.stop() == 0


def test_what_the_settings_allow_is_kept_where_there_is_room_and_a_system_without_room_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10_240, 10_240))
    assert descriptors.fitted(settings) is settings
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    fewer = descriptors.fitted(settings).http
    assert fewer.max_streams < fewer.max_connections < 256 - descriptors.reserve()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(OSError, match="64 open files"):
        descriptors.fitted(settings)


def test_a_hard_limit_without_end_is_no_reason_to_ask_for_more_than_macos_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [(256, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert descriptors.raise_limit() == 10_240
    assert limits[-1] == (10_240, resource.RLIM_INFINITY)
    limits.append((65_536, resource.RLIM_INFINITY))
    assert descriptors.raise_limit() == 65_536
