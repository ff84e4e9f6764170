"""The memory of all bodies together (S-11): a sum, a share of a client, and when it is given back."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from gateway.access.memory import SMALL_BYTES, BodyMemory, Lease
from gateway.errors import BodyMemoryFull
from tests.support.guarded import Guarded, guarded
from tests.support.live import Live, live

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
SETTINGS = {"body_memory_mb": 8, "image_body_bytes": 3 * MIB}


def lease(memory: BodyMemory, *clients: str) -> Lease:
    made = memory.lease()
    made.clients = clients
    return made


def test_body_memory_is_counted_on_arrival_and_released_once() -> None:
    memory = BodyMemory(8 * MIB, MIB)
    one = lease(memory, "a")
    one.arrived(SMALL_BYTES)
    assert memory.used_bytes == 0
    one.arrived(SMALL_BYTES + 10)
    one.arrived(SMALL_BYTES + 30)
    assert memory.used_bytes == 30
    one.keep(SMALL_BYTES + 20)
    assert memory.used_bytes == 20
    one.release()
    one.release()
    assert (memory.used_bytes, memory.clients) == (0, 0)


def test_body_memory_gives_one_client_half_and_others_the_rest() -> None:
    memory = BodyMemory(8 * MIB, MIB)
    mine = [lease(memory, "a") for _ in range(4)]
    for one in mine:
        one.announce(MIB + SMALL_BYTES)
        one.arrived(MIB + SMALL_BYTES)
    with pytest.raises(BodyMemoryFull):
        lease(memory, "a").announce(MIB)
    with pytest.raises(BodyMemoryFull):
        lease(memory, "another name", "a").arrived(MIB)
    others = [lease(memory, str(n)) for n in range(4)]
    for one in others:
        one.arrived(MIB + SMALL_BYTES)
    with pytest.raises(BodyMemoryFull) as full:
        lease(memory, "b").announce(MIB)
    assert full.value.retry_after_s
    lease(memory, "a").announce(SMALL_BYTES)
    for one in (*mine, *others):
        one.release()
    assert (memory.used_bytes, memory.clients) == (0, 0)


def test_body_memory_is_not_taken_by_an_announced_content_length_alone() -> None:
    memory = BodyMemory(8 * MIB, MIB)
    for n in range(20):
        lease(memory, str(n)).announce(MIB)
    assert memory.used_bytes == 0
    lease(memory, "b").arrived(MIB)


# ---- over sockets --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    with guarded(http=SETTINGS) as running:
        yield running


def started(server: Guarded, stack: contextlib.ExitStack, client: str, size: int, sent: int) -> None:
    """A body of `size` bytes of which `sent` have come."""
    sock = stack.enter_context(server.connect())
    head = f"POST /images HTTP/1.1\r\nhost: localhost\r\nx-client-id: {client}\r\ncontent-type: application/json\r\n"
    sock.sendall(f"{head}content-length: {size}\r\n\r\n".encode() + b"1" * sent)


def posted(server: Guarded, client: str, size: int) -> httpx.Response:
    return server.post("/images", headers={**JSON, "x-client-id": client}, content=b"1" * size)


def taken(server: Guarded, client: str, size: int) -> httpx.Response:
    """The answer once there is room again; what hung up is noticed a moment later."""
    end = time.monotonic() + 10
    while (answer := posted(server, client, size)).status_code == 503 and time.monotonic() < end:
        time.sleep(0.05)
    return answer


def test_bodies_over_the_memory_total_are_503_and_small_ones_pass(server: Guarded) -> None:
    with contextlib.ExitStack() as stack:
        for n in range(4):
            started(server, stack, f"c{n}", 3 * MIB, 3 * MIB - 1)
        time.sleep(0.3)
        for client in ("c0", "new"):
            refused = posted(server, client, 2 * MIB)
            assert (refused.status_code, refused.json()["code"]) == (503, "body_memory_full")
            assert int(refused.headers["retry-after"]) > 0
        assert posted(server, "new", SMALL_BYTES).status_code == 200
        assert server.get("/x").status_code == 200
    assert taken(server, "new", 2 * MIB).status_code == 200


def test_body_memory_of_one_client_leaves_half_to_others_over_http(server: Guarded) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            started(server, stack, "greedy", 3 * MIB, 1)
        time.sleep(0.3)
        assert posted(server, "greedy", 3 * MIB).status_code == 503
        assert posted(server, "other", 3 * MIB).status_code == 200


@pytest.mark.parametrize("path", ["/images", "/boom", "/unread", "/nowhere"])
def test_body_memory_is_released_however_the_request_ends(server: Guarded, path: str) -> None:
    for _ in range(8):
        server.post(path, headers=JSON, content=b"1" * (3 * MIB))
    for _ in range(8):
        with server.connect() as sock:
            head = b"POST /images HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            sock.sendall(head + b"content-length: 3000000\r\n\r\n" + b"1" * 2_000_000)
    assert taken(server, "x", 3 * MIB).status_code == 200


# ---- in the protocols ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("memory"), config={"http": SETTINGS}) as gateway:
        yield gateway


@pytest.mark.parametrize("path", ["/sdapi/v1/img2img", "/v1/images/edits", "/api/v1/uploads", "/api/generate"])
def test_body_memory_503_has_the_error_form_of_each_protocol(gateway: Live, path: str) -> None:
    with contextlib.ExitStack() as stack:
        for n in range(4):
            _hold(gateway, stack, f"c{n}")
        time.sleep(0.3)
        body = json.dumps({"prompt": "x", "init_images": ["A" * 2 * MIB]})
        refused = httpx.post(gateway.url + path, content=body, headers=JSON)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        small = httpx.post(f"{gateway.url}/api/v1/generate", json={"prompt": "x", "width": 64, "height": 64})
        assert small.status_code == 200


def _hold(gateway: Live, stack: contextlib.ExitStack, client: str) -> None:
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
    head = f"POST /api/v1/uploads HTTP/1.1\r\nhost: localhost\r\nx-client-id: {client}\r\n"
    sock.sendall(
        f"{head}content-type: application/json\r\ncontent-length: {3 * MIB}\r\n\r\n".encode() + b"1" * (3 * MIB - 1)
    )


def noise(size: int) -> str:
    """A PNG of about `size` bytes, as base64."""
    edge = int((size / 3) ** 0.5)
    file = io.BytesIO()
    Image.frombytes("RGB", (edge, edge), os.urandom(edge * edge * 3)).save(file, "PNG", compress_level=0)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("path", ["/sdapi/v1/img2img", "/v1/images/edits"])
def test_a_request_that_waits_holds_no_memory_of_its_pictures(gateway: Live, path: str) -> None:
    """Four of them would fill the sum."""
    picture = noise(2 * MIB)
    is_sdapi = path.startswith("/sdapi")
    pictures = (
        {"init_images": [picture], "width": 64, "height": 64} if is_sdapi else {"image": picture, "size": "64x64"}
    )
    body = {"prompt": "x", **pictures}
    httpx.post(f"{gateway.url}/api/v1/queue/pause").raise_for_status()
    answers: list[int] = []

    def wait(n: int) -> None:
        headers = {"X-Client-Id": f"w{n % 2}"}
        answers.append(httpx.post(gateway.url + path, json=body, headers=headers, timeout=60).status_code)

    threads = []
    for n in range(6):
        threads.append(threading.Thread(target=wait, args=(n,)))
        threads[-1].start()
        end = time.monotonic() + 20
        while time.monotonic() < end and not answers:
            listed = httpx.get(f"{gateway.url}/metrics").text
            if f"sync_waits {n + 1}" in listed:
                break
            time.sleep(0.05)
    httpx.post(f"{gateway.url}/api/v1/queue/resume").raise_for_status()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
