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
def test_path_with_wrong_base_url_joining_is_corrected(path: str, expected: str) -> None:
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
def test_openai_route_works_however_the_base_url_was_joined(served: Live, path: str) -> None:
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


def test_list_route_accepts_a_trailing_slash(served: Live) -> None:
    assert httpx.get(served.url + "/v1/models/").json() == httpx.get(served.url + "/v1/models").json()


def test_unknown_path_is_still_a_404_in_its_protocols_error_form(served: Live) -> None:
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


def test_options_request_to_every_route_names_its_methods_and_changes_nothing(served: Live) -> None:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for path, methods in routes():
            told = client.options(path)
            assert told.status_code == 204, path
            assert methods <= set(told.headers["allow"].split(", ")), path
            if "GET" not in told.headers["allow"]:
                head = client.head(path)
                assert (head.status_code, head.headers["allow"]) == (204, told.headers["allow"]), path


def test_head_request_to_a_state_changing_get_does_not_run_it(served: Live) -> None:
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
def test_404_suggests_the_nearest_route(served: Live, method: str, path: str, meant: str) -> None:
    answer = httpx.request(method, served.url + path, json={}, timeout=60)
    assert answer.status_code == 404
    assert f"did you mean {meant}?" in answer.text


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/x", "/v1/" + "x" * 4000])
def test_404_without_a_similar_route_points_to_the_documentation(served: Live, path: str) -> None:
    answer = httpx.post(served.url + path, json={}, timeout=60)
    assert answer.status_code == 404
    assert "/docs lists all there is" in answer.text
    assert "x" * 200 not in answer.text


def test_404_never_suggests_a_route_of_another_protocol() -> None:
    known = ["/v1/images/edits", "/sdapi/v1/embeddings"]
    assert nearest("/v1/embeddings", known) is None
    assert nearest("/sdapi/v1/embedding", known) == "/sdapi/v1/embeddings"
