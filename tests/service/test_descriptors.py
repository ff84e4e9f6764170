"""Few open files and many clients: jobs are drawn, and who comes too late is told so."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from gateway.http import open_files as descriptors
from gateway.settings import Settings
from tests.support.live import Live, live
from tests.support.ocr import script

SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}

LIMITED = """
import functools, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
import api_main
from gateway import app
app.OcrOptions = functools.partial(app.OcrOptions, command=(sys.executable, "-m", "tests.support.ocr_child"))
api_main.main()
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Starts a gateway that may have so many open files; it is stopped in the end."""
    with contextlib.ExitStack() as held:

        def start(soft: int, hard: int, **options: Any) -> Live:
            program = ("-c", LIMITED.format(soft=soft, hard=hard))
            return held.enter_context(live(tmp_path, program=program, **options))

        yield start


def clients(gateway: Live, count: int, held: contextlib.ExitStack) -> list[socket.socket]:
    socks = [
        held.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20)) for _ in range(count)
    ]
    for sock in socks:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n")  # and no end of the head
    return socks


def ended(client: httpx.Client, job: str) -> str:
    while (status := str(client.get(f"/api/v1/jobs/{job}").json()["status"])) in ("queued", "generating"):
        time.sleep(0.05)
    return status


def answered(socks: list[socket.socket], more_than: int) -> list[bytes]:
    """The first so many answers: all are 503, and some sockets get none before the deadline of their heads."""
    found: list[bytes] = []
    waiting = socks
    end = time.monotonic() + 20
    while len(found) <= more_than:
        assert time.monotonic() < end
        readable, _, _ = select.select(waiting, [], [], 1)
        waiting = [sock for sock in waiting if sock not in readable]
        found += [sock.recv(4096).lower() for sock in readable]
    assert all(answer.startswith(b"http/1.1 503 ") for answer in found)
    return found


@pytest.mark.parametrize("most", [128, 256])
def test_jobs_run_while_hundreds_connect_and_excess_connections_get_an_error(
    started: Callable[..., Live], most: int
) -> None:
    """S-14."""
    gateway = started(most, most)
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    with httpx.Client(base_url=gateway.url, timeout=30) as known, contextlib.ExitStack() as held:
        assert known.get("/health/live").status_code == 200
        socks = clients(gateway, 300, held)
        jobs = [known.post("/api/v1/generate", json=SMALL).json()["job_id"] for _ in range(5)]
        assert [ended(known, job) for job in jobs] == ["completed"] * 5
        used = process.cpu_times().user
        refused = answered(socks, more_than=300 - most)
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


def test_images_documents_and_jobs_are_processed_while_all_connections_are_taken(started: Callable[..., Live]) -> None:
    """S-14: decoders, readers of text, the engine, the store and the filing have what they need."""
    png = BytesIO()
    Image.effect_noise((512, 512), 50).save(png, "PNG")
    picture = {"image": ("a.png", png.getvalue(), "image/png")}
    document = {"image": ("a.pdf", script("page", "page"))}

    def draws(client: httpx.Client) -> list[int]:
        edit = {"prompt": "x", "size": "64x64"}
        return [client.post("/v1/images/edits", files=picture, data=edit).status_code for _ in range(2)]

    def reads(client: httpx.Client) -> list[int]:
        return [client.post("/v1/images/ocr", files=document).status_code for _ in range(2)]

    gateway = started(256, 256)
    with contextlib.ExitStack() as held, ThreadPoolExecutor(8) as threads:
        known = [held.enter_context(httpx.Client(base_url=gateway.url, timeout=60)) for _ in range(8)]
        for one in known:
            one.get("/health/live")
        clients(gateway, 300, held)
        works = [threads.submit(work, one) for work, one in zip([draws, reads] * 4, known, strict=True)]
        assert [work.result() for work in works] == [[200] * 2] * 8
    assert gateway.stop() == 0
    assert "too many files" not in gateway.logged()


def test_a_stream_above_the_limit_is_503_and_the_others_continue(started: Callable[..., Live]) -> None:
    """S-14."""
    gateway = started(256, 256, fake_script={"step_seconds": 0.5})
    with httpx.Client(base_url=gateway.url, timeout=30) as known, contextlib.ExitStack() as held:
        job = known.post("/api/v1/generate", json={**SMALL, "steps": 4}).json()["job_id"]
        head = "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\nx-client-id: {}\r\n\r\n"
        answers = []
        for n in range(130):
            sock = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20))
            sock.sendall(head.format(n).encode())
            answers.append(sock.recv(4096).split(b" ", 2)[1])
        assert set(answers) == {b"200", b"503"}
        assert answers.index(b"503") > 20
        assert ended(known, job) == "completed"
    assert gateway.stop() == 0


def test_files_of_forms_take_no_descriptors(started: Callable[..., Live]) -> None:
    gateway = started(4096, 4096)
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    part = b'--x\r\ncontent-disposition: form-data; name="image[]"; filename="a.png"\r\n\r\n%b\r\n' % bytes(1_500_000)
    head = b"POST /v1/images/edits HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    before = process.num_fds()
    with contextlib.ExitStack() as held:
        for _ in range(4):
            sock = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=20))
            sock.sendall(head + b"content-length: 20000000\r\n\r\n" + part * 8)
        time.sleep(0.5)
        assert process.num_fds() <= before + 4 + 2
    assert gateway.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="psutil knows limits of other processes on Linux only")
def test_the_soft_limit_is_raised_for_the_gateway_and_its_children(started: Callable[..., Live]) -> None:
    gateway = started(128, 4096)
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    for one in (process, *process.children()):
        assert one.rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)
    assert gateway.stop() == 0
    assert "open files are limited" not in gateway.logged()


@pytest.mark.skipif(sys.platform != "linux", reason="psutil knows limits of other processes on Linux only")
def test_a_process_without_free_descriptors_waits_and_fails_no_job(started: Callable[..., Live]) -> None:
    gateway = started(4096, 4096)
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
        assert [ended(known, one) for one in (job, second)] == ["completed"] * 2
    assert httpx.get(f"{gateway.url}/health/ready", timeout=20).status_code == 200
    assert gateway.stop() == 0


def test_connection_limits_are_reduced_to_the_descriptor_limit_or_refused(
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


@pytest.mark.parametrize(
    ("hard", "granted", "limit"),
    [
        (4096, 4096, 4096),
        (524_288, 524_288, 524_288),
        (resource.RLIM_INFINITY, 10_240, 10_240),
        (524_288, 24_576, 10_240),  # macOS, where the kernel has a bound of its own
        (4096, 100, 256),
    ],
)
def test_the_soft_limit_becomes_the_hard_one_as_far_as_the_system_lets_us(
    monkeypatch: pytest.MonkeyPatch, hard: int, granted: int, limit: int
) -> None:
    limits = [(256, hard)]

    def set_limit(_: int, pair: tuple[int, int]) -> None:
        if pair[0] > granted:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(pair)

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert descriptors.raise_limit() == limit
    assert limits[-1] == (limit, hard)


def test_a_soft_limit_is_never_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it was changed"))
    assert descriptors.raise_limit() == 65_536
