"""Every text of every route, fed with what makes scanners slow and errors long (S-12, S-13, S-20)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.support.hostile import MARKER, REPEATS, Probe, asked, cases, hostile, read, repeated
from tests.support.live import Live, live

FREEZE_S = 10.0
"""On a busy machine; what stood still did so for seconds to hours. `benchmarks.hostile_text` has the strict figures."""
ERROR_BYTES = 1024
SIZES = (100, 8000, 60_000, 250_000)
PAUSE = "/api/v1/queue/pause"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    bounds = {"max_px": 128, "max_steps": 8, "max_batch_size": 2}
    config = {"generation": bounds, "queue": {"waiting": 100_000}}
    with live(tmp_path_factory.mktemp("hostile"), config=config) as gateway:
        httpx.post(f"{gateway.url}/sdapi/v1/reload-checkpoint", timeout=60)
        yield gateway


@pytest.fixture(name="client")
def connected(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as made:
        yield made


def complaints(answer: httpx.Response, unit: str) -> list[str]:
    """What is wrong with an answer that is an error."""
    if answer.status_code < 400:
        return []
    found = [f"{len(answer.content)} bytes"] if len(answer.content) > ERROR_BYTES else []
    found += ["repeats what was sent"] if repeated(read(answer), unit) else []
    return found + (["an unexpected error"] if "made a mistake" in answer.text else [])


@pytest.mark.timeout(300)
def test_hostile_text_in_any_field_never_blocks_the_gateway_nor_appears_in_errors(
    gateway: Live, client: httpx.Client
) -> None:
    """Each field gets a million characters of one repeat, a shorter text of another, and one that never repeats."""
    tried, wrong = 0, []
    probe, turn = Probe(gateway.url, every_s=0.05), count()
    with probe.running():
        for case in cases(client.get("/openapi.json").json()):
            if case.path == PAUSE:
                continue
            at = next(turn)
            units = [(REPEATS[at % len(REPEATS)], case.size), (MARKER, SIZES[at % len(SIZES)])]
            if case.where.startswith(("query", "header", "path")):
                units = units[at % 2 :][:1]
            for unit, size in units:
                answer, took_s = asked(client, case, unit, size)
                if answer is None:
                    continue
                tried += 1
                bad = complaints(answer, unit) + ([f"{took_s:.1f} s"] if took_s > FREEZE_S else [])
                wrong += [(str(case), unit, size, answer.status_code, said) for said in bad]
    assert wrong == []
    assert tried > 1000
    assert probe.slowest_s < FREEZE_S


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sdapi/v1/txt2img", {"prompt": hostile("<a:", 600_000)}),
        ("/sdapi/v1/txt2img", {"prompt": hostile("<lora:", 32_000)}),
        ("/sdapi/v1/txt2img", {"prompt": hostile("<lora:a>", 32_000)}),
        ("/sdapi/v1/options", {"sd_model_checkpoint": hostile(' ["', 180_000)}),
        ("/sdapi/v1/options", {"sd_model_checkpoint": hostile(" [", 8000)}),
        ("/sdapi/v1/txt2img", {"infotext": hostile('a: "b, ', 256_000)}),
        ("/sdapi/v1/txt2img", {"infotext": "x\n" + hostile('a: "\\', 250_000)}),
        ("/v1/images/generations", {"prompt": "x", "size": "1" + " " * 200_000 + "y"}),
        ("/v1/images/generations", {"prompt": "x", "kwargs": hostile('{"a":', 200_000)}),
        ("/sdapi/v1/png-info", {"image": hostile("a ", 20_000_000)}),
        ("/sdapi/v1/png-info", {"image": hostile("\\", 20_000_000)}),
    ],
)
def test_hostile_text_that_once_froze_the_server_does_not_block_other_requests(
    gateway: Live, client: httpx.Client, path: str, body: dict[str, str]
) -> None:
    probe = Probe(gateway.url, every_s=0.05)
    with probe.running():
        answer = client.post(path, json={"width": 64, "height": 64, "steps": 1, **body})
    assert answer.status_code in (200, 400, 422, 413, 500)
    assert complaints(answer, next(iter(body.values()))[:6]) == []
    assert probe.slowest_s < FREEZE_S


@pytest.mark.parametrize("prefix", ["", "/sdapi/v1", "/v1", "/api", "/api/v1", "/docs", "/studio"])
@pytest.mark.parametrize("header", ["host", "origin", "authorization", "x-api-key", "content-type", "sec-fetch-site"])
def test_error_for_a_refused_request_never_repeats_the_clients_text(
    client: httpx.Client, prefix: str, header: str
) -> None:
    for method in ("GET", "POST", "DELETE", MARKER[:20]):
        sent = {header: f"http://{MARKER}" if header == "origin" else MARKER}
        answer = client.request(method, f"{prefix}/{MARKER}", headers=sent, content=b"{}")
        assert answer.status_code >= 400
        assert complaints(answer, MARKER) == []


def test_long_but_legal_texts_are_still_accepted(client: httpx.Client) -> None:
    """A prompt of 32 KiB with tags beside it, an infotext of 256 KiB, names that are no picture's but long."""
    small = {"width": 64, "height": 64, "steps": 1}
    prompt = hostile("é (a:1.2), ", 27_000) + "<lora:night:0.5>" * 3
    drawn = client.post("/sdapi/v1/txt2img", json={"prompt": prompt, **small})
    assert drawn.status_code == 200, drawn.text[:200]
    infotext = "a cat\nSteps: 2, Sampler: Euler, Seed: 5, Note: " + "x" * 200_000
    assert client.post("/sdapi/v1/txt2img", json={"infotext": infotext, **small}).status_code == 200
    native = {"prompt": hostile("a b ", 32 * 1024), "width": 64, "height": 64}
    assert client.post("/api/v1/generate", json=native).status_code == 200
    slashes = '{"image": "' + "\\/" * 500_000 + '"}'
    refused = client.post("/api/v1/uploads", content=slashes, headers={"content-type": "application/json"})
    assert "escapes" not in refused.text
