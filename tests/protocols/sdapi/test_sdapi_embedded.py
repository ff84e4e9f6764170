"""/sdapi/v1 on the embedded model: what is painted into a mask, and how far img2img goes from its picture."""

from __future__ import annotations

import base64
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.inpainting import RIGHT_SHARE, cases, drawn, encoded
from tests.support.sdapi import fixtures
from tools.train_embedded.reading import nearest_kind, objects
from tools.train_embedded.scenes import FIRST_KINDS, PLAINEST, Group, Scene, render

pytest.importorskip("mlx.core")

SLICE = 10
"""Of the 50 cases of `python -m benchmarks.inpainting`."""

SCENES = (("square", "yellow", "green"), ("star", "white", "black"), ("triangle", "purple", "cyan"))
STRENGTHS = {4: (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0), 20: (0.0, 0.15, 0.5, 1.0)}
"""By steps."""
TOLERANCE = 3.0
"""By how many grey levels of 256 the mean distance may fall from one strength to the next."""

gateway, client = fixtures(backend="mlx")


def test_inpainting_draws_the_object_inside_the_mask_and_keeps_the_rest(client: httpx.Client) -> None:
    ran = [(case, drawn(client, case)) for case in cases(SLICE)]
    assert all(case.keeps_the_rest(answer) for case, answer in ran)
    wrong = [case for case, answer in ran if not case.shows_it(answer)]
    assert len(wrong) <= (1 - RIGHT_SHARE) * SLICE, wrong


@pytest.mark.parametrize("steps", STRENGTHS)
def test_more_denoising_differs_more_from_the_init_image(client: httpx.Client, steps: int) -> None:
    starts = [render(Scene((Group(kind, colour),), ground), PLAINEST) for kind, colour, ground in SCENES]
    fresh = picture(client, steps)
    distances = []
    for strength in STRENGTHS[steps]:
        answers = [picture(client, steps, start, strength) for start in starts]
        distances.append(float(np.mean([apart(*pair) for pair in zip(answers, starts, strict=True)])))
        if strength == 0:
            assert all(answer.tobytes() == start.tobytes() for answer, start in zip(answers, starts, strict=True))
        if strength == 1:
            assert all(answer.tobytes() == fresh.tobytes() for answer in answers)
    by_strength = dict(zip(STRENGTHS[steps], distances, strict=True))
    assert all(after >= before - TOLERANCE for before, after in pairwise(distances)), by_strength
    assert by_strength[0.15] < 0.5 * by_strength[1.0], by_strength


def test_image_i_of_a_batch_equals_the_single_image_of_seed_plus_i_also_with_subseeds(
    client: httpx.Client,
) -> None:
    batch = drawings(client, "txt2img", seed=41, batch_size=2)
    (single,) = drawings(client, "txt2img", seed=42)
    (varied,) = drawings(client, "txt2img", seed=41, subseed=42, subseed_strength=1)
    assert batch[1].tobytes() == single.tobytes() == varied.tobytes() != batch[0].tobytes()


def test_hires_fix_draws_the_prompt_at_a_larger_size(client: httpx.Client) -> None:
    (larger,) = drawings(client, "txt2img", enable_hr=True, hr_scale=1.5, denoising_strength=0.5)
    assert larger.size == (192, 192)
    assert [(thing.colour, nearest_kind(thing, FIRST_KINDS)) for thing in objects(larger)] == [("red", "circle")]


def test_progress_shows_a_running_job_and_an_interrupt_ends_it_with_the_finished_images(client: httpx.Client) -> None:
    body = {"prompt": "a red circle", "seed": 3, "width": 128, "height": 96, "steps": 8, "batch_size": 10}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, "txt2img", json=body)
        seen = None
        while seen is None and not waiting.done():
            seen = client.get("progress").json()["current_image"]
            time.sleep(0.02)
        assert client.post("interrupt").json() == {}
        answer = waiting.result()
    assert seen is not None
    assert Image.open(io.BytesIO(base64.b64decode(seen))).size == (128, 96)
    notes = json.loads(answer.json()["info"])
    assert answer.status_code == 200
    assert len(answer.json()["images"]) == len(notes["infotexts"]) < 10 == len(notes["all_seeds"])


def picture(
    client: httpx.Client, steps: int, start: Image.Image | None = None, strength: float | None = None
) -> Image.Image:
    if start is None:
        return drawings(client, "txt2img", steps=steps)[0]
    said = {"init_images": [encoded(start)], "denoising_strength": strength}
    return drawings(client, "img2img", steps=steps, **said)[0]


def drawings(client: httpx.Client, path: str, **said: Any) -> list[Image.Image]:
    body = {"prompt": "a red circle on a blue background", "seed": 3, "width": 128, "height": 128, **said}
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return [Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB") for image in answer.json()["images"]]


def apart(one: Image.Image, other: Image.Image) -> float:
    """Root mean square distance in grey levels."""
    return float(np.sqrt(np.mean((np.asarray(one, dtype=float) - np.asarray(other, dtype=float)) ** 2)))
