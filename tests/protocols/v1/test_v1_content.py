"""Pictures by URL: parts, conditions, and where the URL points to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import formatdate

import httpx
import pytest
from starlette.datastructures import Headers

from adapters.v1.content import conditional, part_of
from tests.support.live import Live
from tests.support.v1 import gateway, opened, plain_client

BODY = bytes(range(100))
CHANGED_AT = 1_763_000_000.5
ETAG, MODIFIED = '"x"', formatdate(CHANGED_AT, usegmt=True)


def answered(**asked: str) -> tuple[int, bytes, str | None]:
    headers = Headers({name.replace("_", "-"): value for name, value in asked.items()})
    answer = conditional(headers, BODY, "image/png", {"ETag": ETAG, "Last-Modified": MODIFIED}, CHANGED_AT)
    return answer.status_code, bytes(answer.body), answer.headers.get("content-range")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-", range(100)),
        ("bytes=0-9", range(10)),
        ("bytes=10-10", range(10, 11)),
        ("bytes=90-500", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-500", range(100)),
        ("bytes=100-", range(100, 100)),
        ("bytes=-0", range(100, 100)),
        ("bytes=9-5", None),
        ("bytes=0-1,5-6", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("items=0-1", None),
        ("bytes=٣-٥", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_range_header_of_one_part_is_parsed(header: str, part: range | None) -> None:
    assert part_of(header, 100) == part


def test_image_content_answers_a_range_request_with_206() -> None:
    assert answered(range="bytes=10-19") == (206, BODY[10:20], "bytes 10-19/100")
    assert answered(range="bytes=500-") == (416, b"", "bytes */100")
    assert answered(range="bytes=0-1,5-6") == (200, BODY, None)


@pytest.mark.parametrize(
    ("held", "status"),
    [(ETAG, 206), (MODIFIED, 206), ('"y"', 200), (formatdate(0, usegmt=True), 200), ("W/" + ETAG, 200)],
)
def test_range_request_honours_if_range_and_sends_the_whole_file_when_outdated(held: str, status: int) -> None:
    assert answered(range="bytes=0-1", if_range=held)[0] == status


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"if_none_match": ETAG}, 304),
        ({"if_none_match": '"a", W/"x"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"a"'}, 200),
        ({"if_none_match": '"a"', "if_modified_since": MODIFIED}, 200),
        ({"if_modified_since": MODIFIED}, 304),
        ({"if_modified_since": formatdate(CHANGED_AT - 60, usegmt=True)}, 200),
        ({"if_modified_since": "yesterday"}, 200),
    ],
)
def test_image_content_that_the_client_has_cached_is_304(asked: dict[str, str], status: int) -> None:
    assert answered(**asked)[0] == status


# ---- over a socket ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    config = {"access": {"hosts": ["pictures.example"]}, "retention": {"url_hours": 1}}
    with gateway(tmp_path_factory.mktemp("v1"), config, step_seconds=0.0) as running:
        yield running


def url(served: Live, **headers: str) -> str:
    with plain_client(served) as client:
        answer = client.post("/v1/images/generations", json={"prompt": "an apple", "size": "64x64"}, headers=headers)
    found: str = answer.json()["data"][0]["url"]
    return found


@pytest.mark.parametrize("ending", ["png", "jpeg", "webp"])
def test_picture_is_served_in_ranges_and_not_again_when_cached(served: Live, ending: str) -> None:
    address = url(served).removesuffix("png") + ending
    whole = httpx.get(address)
    assert whole.headers["content-type"] == f"image/{ending}"
    assert whole.headers["accept-ranges"] == "bytes"
    middle = len(whole.content) // 2
    parts = [httpx.get(address, headers={"Range": f"bytes={span}"}) for span in (f"0-{middle - 1}", f"{middle}-")]
    assert [part.status_code for part in parts] == [206, 206]
    assert b"".join(part.content for part in parts) == whole.content
    again = httpx.get(address, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == whole.headers["etag"]
    assert httpx.get(address, headers={"If-Modified-Since": whole.headers["last-modified"]}).status_code == 304


def test_picture_url_expires_and_the_picture_stays(served: Live) -> None:
    address = url(served)
    assert opened(httpx.get(address).content).size == (64, 64)
    file = served.folder / "output" / address.rpartition("/")[2]
    os.utime(file, (time.time() - 3700,) * 2)
    gone = httpx.get(address)
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "not_found"
    assert file.exists()


def test_picture_url_has_the_host_by_which_the_proxy_was_called(served: Live) -> None:
    forwarded = {"X-Forwarded-Host": "pictures.example, inner", "X-Forwarded-Proto": "https"}
    assert url(served, **forwarded).startswith("https://pictures.example/v1/images/content/")
    assert url(served, **{"X-Forwarded-Proto": "https"}).startswith(f"https://127.0.0.1:{served.port}/")


@pytest.mark.parametrize("host", ["evil.example", "a b", "pictures.example/x", "pictures.example@evil.example", ""])
def test_forwarded_host_header_of_a_foreign_host_is_ignored(served: Live, host: str) -> None:
    forwarded = {"X-Forwarded-Host": host, "X-Forwarded-Proto": "javascript"}
    assert url(served, **forwarded).startswith(f"http://127.0.0.1:{served.port}/v1/images/content/")
