"""The /v1 prefix by plain HTTP: golden requests of real clients, bytes of hostile ones, the stream letter by letter."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live import Live
from tests.support.v1 import assert_openai_error, gateway, jobs, opened, plain_client

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "v1").glob("*.json"))
JSON = {"Content-Type": "application/json"}
APPLE = {"prompt": "an apple", "size": "64x64"}


def generate(plain: httpx.Client, body: Any = None, **headers: str) -> httpx.Response:
    return plain.post("/v1/images/generations", json={**APPLE, **(body or {})}, headers=headers)


# ---- golden requests -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_request_of_a_real_client_is_answered_with_the_fields_it_reads(plain: httpx.Client, file: Path) -> None:
    golden = json.loads(file.read_text())
    answer = plain.post("/v1/images/generations", json=golden["body"], headers=golden["headers"])
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["size"] == golden["size"]
    assert len(body["data"]) == (golden["body"].get("n") or 1)
    for row in body["data"]:
        assert {key for key in ("b64_json", "url") if row[key] is not None} == set(golden["rows"])
        if row["url"] is not None:
            assert opened(httpx.get(row["url"]).content).format == "PNG"
    if "seed" in golden:
        assert body["data"][0]["seed"] == golden["seed"]


def test_a_lora_is_used_at_its_scale(plain: httpx.Client) -> None:
    without, one, half, two = (
        opened(generate(plain, {"seed": 5, **body}).json()["data"][0]["b64_json"]).tobytes()
        for body in (
            {},
            {"loras": ["style"]},
            {"loras": [{"name": "style", "scale": 0.5}]},
            {"kwargs": "{}", "lora": "style"},
        )
    )
    assert len({without, one, half}) == 3
    assert one == two
    assert assert_openai_error(generate(plain, {"lora": {"name": "style", "scale": 9}}), 400)["param"] == "lora"


def test_requests_in_parallel_all_get_their_picture(served: Live) -> None:
    """The AI SDK splits n pictures into n requests."""

    def one(seed: int) -> tuple[int, int]:
        with plain_client(served) as plain:
            answer = generate(plain, {"seed": seed})
            return answer.status_code, answer.json()["data"][0]["seed"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(8))) == [(200, seed) for seed in range(8)]


# ---- hostile bytes ---------------------------------------------------------------------------------

BAD_BODIES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("deep", b"[" * 200_000),
    ("deep object", b'{"prompt":' * 40 + b"1" + b"}" * 40),
    ("5000 digits", b'{"prompt":"x","seed":' + b"9" * 5000 + b"}"),
    ("bytes that are no text", b"\xff\xfe"),
    ("latin-1", '{"prompt":"é"}'.encode("latin-1")),
    ("NaN", b'{"prompt":"x","guidance":NaN}'),
    ("Infinity", b'{"prompt":"x","guidance":Infinity}'),
    ("1e999", b'{"prompt":"x","guidance":1e999}'),
    ("a lone surrogate", b'{"prompt":"\\ud800"}'),
    ("NUL", b'{"prompt":"a\\u0000b"}'),
    ("NUL in kwargs", b'{"prompt":"x","kwargs":"{\\"negative_prompt\\":\\"\\\\u0000\\"}"}'),
    ("a key twice", b'{"prompt":"x","prompt":"y"}'),
    ("a trailing comma", b'{"prompt":"an apple",}'),
    ("a list", b"[1]"),
    ("a string", b'"x"'),
    ("null", b"null"),
    ("an empty object", b"{}"),
    ("20000 values", b'{"prompt":"x","a":[' + b"0," * 20_000 + b"0]}"),
    ("65-bit integers", b'{"prompt":"x","seed":99999999999999999999}'),
]
BAD_FIELDS: list[dict[str, Any]] = [
    {"prompt": "x" * 32_001},
    {"prompt": "é" * 20_000},
    {"width": 8208, "height": 64},
    {"width": 32},
    {"size": "0x0"},
    {"size": "64x-64"},
    {"size": "2048x2048x2048"},
    {"steps": 0},
    {"steps": 101},
    {"n": 11},
    {"n": 0},
    {"guidance": -1},
    {"guidance": 31},
    {"seed": -(2**63) - 1},
    {"seed": 2**64},
    {"model": {"$ne": 1}},
    {"loras": ["../../etc/passwd"]},
    {"loras": ["x"] * 50},
    {"prompt": {"toString": "x"}},
    {"stream": "yes"},
    {"image": "http://127.0.0.1:1/x.png"},
]


@pytest.mark.parametrize(("name", "body"), BAD_BODIES, ids=[name for name, _ in BAD_BODIES])
def test_body_that_is_no_valid_json_request_is_a_400_in_the_openai_error_form(
    plain: httpx.Client, name: str, body: bytes
) -> None:
    """Table A2; the next request works."""
    answer = plain.post("/v1/images/generations", content=body, headers=JSON)
    assert assert_openai_error(answer, 400)["type"] == "invalid_request_error"
    assert plain.get("/v1/models").status_code == 200


@pytest.mark.parametrize("body", BAD_FIELDS, ids=lambda body: repr(body)[:50])
@pytest.mark.parametrize("stream", [False, True])
def test_parameter_out_of_bounds_is_a_400_before_any_stream(
    plain: httpx.Client, body: dict[str, Any], stream: bool
) -> None:
    """Table A3."""
    error = assert_openai_error(generate(plain, {"stream": stream, **body}), 400)
    assert error["param"] in {*body, *({"size"} if "width" in body else ())}
    assert "passwd" not in error["message"] or "loras" in body


@pytest.mark.parametrize("name", ["../../etc/passwd", "x" * 5000, "schnell", "flux2-klein-4b ", "FLUX2-TINY", "%2e%2e"])
def test_a_model_name_is_matched_exactly_or_not_found(plain: httpx.Client, name: str) -> None:
    """S-21."""
    error = assert_openai_error(generate(plain, {"model": name}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "shapes" in error["available_models"]


def test_picture_is_still_drawn_after_all_the_bad_requests(plain: httpx.Client) -> None:
    assert opened(generate(plain).json()["data"][0]["b64_json"]).size == (64, 64)


def test_a_body_that_is_too_large_or_of_another_type_is_refused(plain: httpx.Client) -> None:
    large = plain.post("/v1/images/generations", content=b" " * 300_000, headers=JSON)
    assert_openai_error(large, 413)
    form = plain.post("/v1/images/generations", content=b"prompt=x", headers={"Content-Type": "text/plain"})
    assert_openai_error(form, 415)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("POST", "/v1/responses", 404),
        ("POST", "/v1/files", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1/images/generations", 405),
        ("GET", "/v1/images/edits", 405),
        ("GET", "/v1/images/variations", 405),
        ("PUT", "/v1/models/shapes", 405),
        ("GET", "/v1/models/none", 404),
    ],
)
def test_unknown_route_or_method_has_the_openai_error_form(
    plain: httpx.Client, method: str, path: str, status: int
) -> None:
    assert_openai_error(plain.request(method, path, json={} if method == "POST" else None), status)


def test_foreign_origin_is_refused_in_this_protocols_error_form(plain: httpx.Client) -> None:
    answer = generate(plain, None, Origin="https://evil.example", **{"Sec-Fetch-Site": "cross-site"})
    assert assert_openai_error(answer, 403)["type"] == "permission_error"


# ---- models ----------------------------------------------------------------------------------------


def test_a_model_id_may_hold_an_escaped_slash_and_a_colon(plain: httpx.Client) -> None:
    model = plain.get("/v1/models/org%2Fm:4bit").json()
    assert model["id"] == "org/m:4bit"
    assert model["object"] == "model"
    assert isinstance(model["created"], int)


def test_model_row_has_the_fields_the_xinference_client_needs(plain: httpx.Client) -> None:
    model = plain.get("/v1/models/shapes").json()
    assert model["model_type"] == "image"
    assert model["model_ability"] == ["text2image", "image2image", "inpainting"]
    assert model["model_name"] == "shapes"


# ---- pictures by URL -------------------------------------------------------------------------------


def test_picture_url_may_be_embedded_by_any_site_and_needs_no_key(plain: httpx.Client) -> None:
    url = generate(plain, {"output_format": "webp"}).json()["data"][0]["url"]
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    answer = httpx.get(url, headers=foreign)
    assert answer.status_code == 200
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["content-type"] == "image/webp"
    head = httpx.head(url)
    assert (head.status_code, head.content) == (200, b"")


def test_picture_compression_applies_to_url_and_base64_alike(plain: httpx.Client) -> None:
    row = generate(plain, {"output_format": "jpeg", "output_compression": 10}).json()["data"][0]
    assert opened(httpx.get(row["url"]).content).tobytes() == opened(row["b64_json"]).tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "0" * 32 + ".1.0.png",
        "x.png",
        "..%2f..%2fgateway.log",
        "%2e%2e/%2e%2e/gateway.log",
        "0" * 32 + ".1.0.gif",
        "0" * 32 + ".1.0.png%0a",
        "0" * 32 + ".1.0.png.png",
    ],
)
def test_image_content_with_an_unknown_name_is_a_404(plain: httpx.Client, name: str) -> None:
    assert_openai_error(plain.get(f"/v1/images/content/{name}"), 404)


def test_a_removed_picture_is_a_404(served: Live, plain: httpx.Client) -> None:
    url = generate(plain).json()["data"][0]["url"]
    (served.folder / "output" / url.rpartition("/")[2]).unlink()
    assert_openai_error(httpx.get(url), 404)


def test_picture_url_has_the_host_the_client_called(served: Live, plain: httpx.Client) -> None:
    url = generate(plain, None, Host=f"localhost:{served.port}").json()["data"][0]["url"]
    assert url.startswith(f"http://localhost:{served.port}/v1/images/content/")


def test_picture_urls_are_the_only_open_routes_when_keys_are_set(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me secret-of-at-least-some-length\n")
    keys.chmod(0o600)
    config = {"access": {"keys_file": str(keys)}, "server": {"public_url": "https://pictures.example/base/"}}
    with gateway(tmp_path, config, ready=False, step_seconds=0.0) as locked, plain_client(locked) as plain:
        assert assert_openai_error(generate(plain), 401)["type"] == "authentication_error"
        assert_openai_error(plain.get("/v1/models"), 401)
        answer = generate(plain, Authorization="Bearer secret-of-at-least-some-length")
        base = "https://pictures.example/base"
        url = answer.json()["data"][0]["url"]
        assert url.startswith(f"{base}/v1/images/content/")
        assert plain.get(url.removeprefix(base)).status_code == 200


# ---- the stream, letter by letter ------------------------------------------------------------------


def test_the_stream_is_server_sent_events_without_ids(plain: httpx.Client) -> None:
    answer = generate(plain, {"stream": True, "partial_images": 3, "n": 2})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache, no-store, no-transform"
    assert answer.headers["x-request-id"] == jobs(plain)[0]["id"]
    opening, _, events = answer.text.replace("\r\n", "\n").partition("\n\n")
    assert opening == ": open"
    lines = events.split("\n")
    assert not [line for line in lines if line.startswith(("id", "retry"))]
    assert {line.partition(":")[0] for line in lines if line} <= {"event", "data", ""}
    for event, data in zip(lines[::3], lines[1::3], strict=False):
        if event:
            assert json.loads(data.removeprefix("data: "))["type"] == event.removeprefix("event: ")
    assert answer.text.endswith("\n\n")
    assert answer.text.count("event: image_generation.completed") == 2


def test_the_answer_and_the_stream_of_one_seed_are_the_same_picture(plain: httpx.Client) -> None:
    answer = generate(plain, {"seed": 9})
    stream = generate(plain, {"seed": 9, "stream": True})
    event = json.loads(stream.text.partition("data: ")[2].partition("\n")[0])
    assert opened(event["b64_json"]).tobytes() == opened(answer.json()["data"][0]["b64_json"]).tobytes()


@pytest.mark.parametrize("stream", [False, True])
def test_an_idempotency_key_gives_the_same_job_again(plain: httpx.Client, stream: bool) -> None:
    key = {"Idempotency-Key": f"once-{stream}"}
    answers = [generate(plain, {"stream": stream}, **key) for _ in range(2)]
    assert answers[0].headers["x-request-id"] == answers[1].headers["x-request-id"]
    assert [answer.text.count("b64_json") for answer in answers] == [1, 1]
    conflict = generate(plain, {"stream": stream, "prompt": "a pear"}, **key)
    assert assert_openai_error(conflict, 409)
    assert conflict.headers["x-should-retry"] == "false"


def test_full_queue_sends_retry_after_of_at_most_a_minute(tmp_path: Path) -> None:
    with gateway(tmp_path, {"queue": {"waiting": 1}}, step_seconds=1.0) as busy, plain_client(busy) as plain:
        for _ in range(2):
            while plain.post("/api/v1/generate", json={"prompt": "x", "steps": 8}).status_code == 503:
                pass
        for stream in (False, True):
            answer = generate(plain, {"stream": stream})
            assert assert_openai_error(answer, 503)["type"] == "server_error"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert "x-should-retry" not in answer.headers


def test_waiting_client_over_the_limit_is_refused_before_a_job_is_made(tmp_path: Path) -> None:
    with gateway(tmp_path, {"http": {"sync_waits": 1}}, step_seconds=1.0) as busy, plain_client(busy) as plain:
        ask = {**APPLE, "stream": True, "partial_images": 1, "steps": 4}
        with plain.stream("POST", "/v1/images/generations", json=ask) as first:
            lines = first.iter_lines()
            while not next(lines).startswith("event"):
                pass
            for stream in (False, True):
                assert_openai_error(generate(plain, {"stream": stream}), 503)
            assert len(jobs(plain)) == 1
