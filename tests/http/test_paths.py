"""Addresses as clients join them: slashes too many, a prefix too many or too few, and probes without a body."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapters import ADAPTERS
from gateway.http.paths import canonical_path, nearest
from tests.support.live import Live

PREFIXES = ("/sdapi/v1", "/api/v1", "/api", "/v1")
UNPREFIXED = {"/images": "/v1", "/models": "/v1"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1/models", "/v1/models"),
        ("//v1/models", "/v1/models"),
        ("/v1//models//", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/v1/v1", "/v1"),
        ("/v1/v1x", "/v1/v1x"),
        ("/sdapi/v1/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
        ("/api/v1/api/v1/jobs", "/api/v1/jobs"),
        ("/images/generations", "/v1/images/generations"),
        ("/models", "/v1/models"),
        ("/modelsx", "/modelsx"),
        ("/image", "/image"),
    ],
)
def test_a_path_is_joined_as_it_was_meant(path: str, expected: str) -> None:
    assert canonical_path(path, PREFIXES, UNPREFIXED) == expected


@pytest.mark.parametrize(
    "path",
    [
        "//v1/images/generations",
        "/v1//images/generations",
        "/v1/images/generations/",
        "/v1/v1/images/generations",
        "/images/generations",
    ],
)
def test_openais_route_draws_however_its_base_url_was_joined(served: Live, path: str) -> None:
    answer = httpx.post(served.url + path, json={"prompt": "a star", "size": "64x64"}, timeout=60)
    assert (answer.status_code, len(answer.json()["data"])) == (200, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("//sdapi/v1/txt2img", {"prompt": "a star", "steps": 1, "width": 64, "height": 64}),
        ("/sdapi/v1/sdapi/v1/txt2img/", {"prompt": "a star", "steps": 1, "width": 64, "height": 64}),
        ("/api//generate", {"prompt": "a star", "width": 64, "height": 64}),
        ("/generate/", {"prompt": "a star", "width": 64, "height": 64}),
        ("/api/v1/generate//", {"prompt": "a star", "width": 64, "height": 64}),
    ],
)
def test_every_protocol_takes_doubled_and_trailing_slashes(served: Live, path: str, body: dict[str, Any]) -> None:
    assert httpx.post(served.url + path, json=body, timeout=60).status_code == 200


def test_a_list_with_a_slash_behind_it_is_the_list(served: Live) -> None:
    assert httpx.get(served.url + "/v1/models/").json() == httpx.get(served.url + "/v1/models").json()


def test_what_no_route_has_is_still_a_404_in_its_protocols_shape(served: Live) -> None:
    assert httpx.get(served.url + "/v1//nothing/").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(served.url + "//sdapi/v1//nothing").json()["detail"] == "Not Found"


def routes() -> list[tuple[str, set[str]]]:
    found: dict[str, set[str]] = {}
    for adapter in ADAPTERS:
        for route in adapter.routes:
            path = route.path
            for name in route.param_convertors:
                for spelling in (f"{{{name}}}", f"{{{name}:path}}", f"{{{name}:int}}"):
                    path = path.replace(spelling, "1")
            found.setdefault(path, set()).update(route.methods or ())
    return sorted(found.items())


def test_a_probe_of_every_route_is_told_what_it_takes_and_changes_nothing(served: Live) -> None:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for path, methods in routes():
            told = client.options(path)
            assert told.status_code == 204, path
            assert methods <= set(told.headers["allow"].split(", ")), path
            if "GET" not in told.headers["allow"]:
                head = client.head(path)
                assert (head.status_code, head.headers["allow"]) == (204, told.headers["allow"]), path


def test_a_head_of_a_get_that_changes_something_does_not_run_it(served: Live) -> None:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        task = client.post("/api/generate", json={"prompt": "a star", "width": 64, "height": 64}).json()["task_id"]
        for path in ("/api/clear", "/api/cancel", "/api/image", "/clear", "/cancel", "/image"):
            assert client.head(path, params={"task_id": task}).status_code == 204
        assert task in [shown["task_id"] for shown in client.get("/api/tasks").json()]


# ---- what is not there -----------------------------------------------------------------------------

HINTS = [
    ("POST", "/V1/images/generations", "/v1/images/generations"),
    ("POST", "/openai/v1/images/generations", "/v1/images/generations"),
    ("POST", "/v1/v1/v1/images/generations", "/v1/images/generations"),
    ("POST", "/v1/images/generate", "/v1/images/generations"),
    ("POST", "/v1/image/edits", "/v1/images/edits"),
    ("POST", "/sdapi/txt2img", "/sdapi/v1/txt2img"),
    ("POST", "/v1/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
    ("POST", "/sdapi/v1/v1/img2img", "/sdapi/v1/img2img"),
    ("POST", "/api/v2/generate", "/api/v1/generate"),
]


@pytest.mark.parametrize(("method", "path", "meant"), HINTS)
def test_a_404_names_the_route_that_was_meant(served: Live, method: str, path: str, meant: str) -> None:
    answer = httpx.request(method, served.url + path, json={}, timeout=60)
    assert answer.status_code == 404
    assert f"did you mean {meant}?" in answer.text


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/x", "/v1/" + "x" * 4000])
def test_a_404_where_nothing_like_it_is_names_the_documentation(served: Live, path: str) -> None:
    answer = httpx.post(served.url + path, json={}, timeout=60)
    assert answer.status_code == 404
    assert "/docs lists all there is" in answer.text
    assert "x" * 200 not in answer.text


def test_nothing_of_another_protocol_is_meant() -> None:
    known = ["/v1/images/edits", "/sdapi/v1/embeddings"]
    assert nearest("/v1/embeddings", known) is None
    assert nearest("/sdapi/v1/embedding", known) == "/sdapi/v1/embeddings"
