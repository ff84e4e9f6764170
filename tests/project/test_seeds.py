"""Seeds as dice of clients throw them, of 63 and 64 bits, with a sign or without: in every protocol and picture."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from engine.pipelines.common.base import key_of
from tests.support.live import live
from tests.support.v1 import plain_client

SEEDS = (2**32, 2**53 + 1, 6_687_000_000_000_000_007, 2**63 - 1, 2**64 - 1, -5, -(2**63))
SMALL: dict[str, Any] = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 1}


def a1111(client: httpx.Client, seed: int, **more: Any) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "seed": seed, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return {"info": json.loads(body["info"]), "picture": body["images"][0]}


@pytest.mark.parametrize("seed", SEEDS)
def test_seed_that_was_sent_is_the_one_reported(plain: httpx.Client, seed: int) -> None:
    info = a1111(plain, seed)["info"]
    assert (info["seed"], info["all_seeds"]) == (seed, [seed])
    assert f"Seed: {seed}," in info["infotexts"][0]
    row = plain.post("/v1/images/generations", json={"prompt": "x", "size": "64x64", "seed": seed}).json()["data"][0]
    assert row["seed"] == seed
    for said in (seed, str(seed)):
        submitted = plain.post("/api/v1/generate", json={**SMALL, "seed": said})
        assert submitted.status_code == 200, submitted.text
        assert plain.get(f"/api/v1/jobs/{submitted.json()['job_id']}").json()["seeds"] == [seed]
    said_as_text = plain.post("/api/generate", json={**SMALL, "seed": str(seed)})
    assert said_as_text.status_code in (200, 202), said_as_text.text


@pytest.mark.parametrize("seed", [s for s in SEEDS if s > 0])
def test_an_infotext_with_a_long_seed_draws_its_picture_again(plain: httpx.Client, seed: int) -> None:
    first = a1111(plain, seed, subseed=seed - 1, subseed_strength=0.5)
    answer = plain.post("/sdapi/v1/txt2img", json={"infotext": first["info"]["infotexts"][0]})
    assert answer.json()["images"] == [first["picture"]]


def test_the_picture_depends_on_all_bits_of_its_seed(tmp_path: Path) -> None:
    base = 0x0123_4567_89AB_CDEF
    asked = [base, *(base ^ (1 << bit) for bit in (0, 31, 32, 52, 53, 62, 63)), -base]
    with live(tmp_path, backend="mlx") as running, plain_client(running) as client:
        pictures = [a1111(client, seed, model="flux2-tiny")["picture"] for seed in asked]
        again = a1111(client, base, model="flux2-tiny")["picture"]
    pixels = [hashlib.sha256(Image.open(io.BytesIO(base64.b64decode(one))).tobytes()).digest() for one in pictures]
    assert len(set(pixels)) == len(asked)
    assert again == pictures[0]


def test_seed_of_every_accepted_value_maps_to_an_engine_key() -> None:
    assert [key_of(seed) for seed in (0, 2**64 - 1, -1, -(2**63), 7)] == [0, 2**64 - 1, 2**64 - 1, 2**63, 7]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
def test_seed_of_too_many_bits_is_refused(plain: httpx.Client, seed: int) -> None:
    assert plain.post("/sdapi/v1/txt2img", json={**SMALL, "seed": seed}).status_code == 422
    assert plain.post("/v1/images/generations", json={"prompt": "x", "seed": seed}).status_code == 400
    assert plain.post("/api/v1/generate", json={**SMALL, "seed": seed}).status_code == 400
