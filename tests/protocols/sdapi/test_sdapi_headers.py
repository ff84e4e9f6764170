"""/sdapi/v1, what surrounds a body: keys by HTTP Basic, gzip, the seconds it took."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.sdapi.compression import LEAST_BYTES, gzipped, takes_gzip
from tests.support.live import Live
from tests.support.sdapi import SMALL, fixtures

KEY = "0123456789abcdef0123456789abcdef"

gateway, client = fixtures()


# ---- gzip and time ---------------------------------------------------------------------------------


def test_a_long_answer_is_compressed_only_for_clients_that_accept_gzip(client: httpx.Client) -> None:
    body = {**SMALL, "width": 256, "height": 256}
    packed = client.post("txt2img", json=body, headers={"accept-encoding": "deflate, gzip;q=0.5"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in packed.headers["vary"].lower()
    assert int(packed.headers["content-length"]) < len(packed.content)
    plain = client.post("txt2img", json=body, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert [len(json.loads(answer.content)["images"]) for answer in (packed, plain)] == [1, 1]


def test_a_short_answer_is_not_compressed(client: httpx.Client) -> None:
    answer = client.get("face-restorers", headers={"accept-encoding": "gzip"})
    assert len(answer.content) < LEAST_BYTES
    assert "content-encoding" not in answer.headers


def test_an_answer_has_the_process_time_header(client: httpx.Client) -> None:
    good = (client.get("options"), client.post("txt2img", json=SMALL), client.post("skip"))
    refused = (client.get("nothing"), client.get("txt2img"), client.post("txt2img", json={"width": "x"}))
    at_the_door = client.post("txt2img", content=b"x" * 10, headers={"content-type": "text/plain"})
    for answer in (*good, *refused, at_the_door):
        assert float(answer.headers["x-process-time"]) >= 0
    assert [answer.status_code for answer in (*refused, at_the_door)] == [404, 405, 422, 422]


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True),
        ("br, GZIP", True),
        ("gzip;q=1.0, *;q=0", True),
        ("gzip; q=0", False),
        ("gzip;q=0.0", False),
        ("", False),
        ("identity", False),
        ("x-gzipped", False),
    ],
)
def test_gzip_is_used_where_accept_encoding_names_it(header: str, takes: bool) -> None:
    assert takes_gzip(header) is takes


@pytest.mark.parametrize("body", [b"", b"x" * 5000, bytes(range(256)) * 20])
def test_a_compressed_body_can_be_decompressed(body: bytes) -> None:
    assert gzip.decompress(gzipped(body)) == body


# ---- keys ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("locked")
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(f"me {KEY}\n")
    gateway = Live(folder, config={"access": {"keys_file": str(keys)}})
    yield gateway.start(ready=False)  # /health/ready wants the key, too
    gateway.stop()


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_key_is_the_password_of_basic_auth_with_any_user_name(locked: Live) -> None:
    for user in ("", "admin", "user:with"):
        headers = basic(user, KEY) if ":" not in user else basic("admin", KEY)
        assert httpx.get(f"{locked.url}/sdapi/v1/options", headers=headers).status_code == 200
    drawn = httpx.post(f"{locked.url}/sdapi/v1/txt2img", json=SMALL, headers=basic("x", KEY), timeout=100)
    assert drawn.status_code == 200
    assert httpx.get(f"{locked.url}/internal/ping").status_code == 200


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Not authenticated"),
        ({"authorization": ""}, "Not authenticated"),
        ({"authorization": "Basic"}, "Not authenticated"),
        (basic("admin", "wrong"), "Incorrect username or password"),
        (basic(KEY, ""), "Incorrect username or password"),
    ],
)
def test_without_the_key_an_answer_is_a1111s_401(locked: Live, headers: dict[str, str], detail: str) -> None:
    response = httpx.get(f"{locked.url}/sdapi/v1/options", headers=headers)
    assert response.status_code == 401
    body = response.json()
    assert (body["error"], body["detail"], body["body"]) == ("HTTPException", detail, "")
    assert any("Basic" in value for value in response.headers.get_list("www-authenticate"))
