"""The script "SD upscale" of /sdapi: what it is told, one durable job of all tiles, and what of it is refused."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from adapters.sdapi.lists import SCRIPT_INFO
from adapters.sdapi.sd_upscale import SdUpscale, script_of
from tests.support.live import live
from tests.support.sdapi import SMALL, fixtures, noise, opened

STEP_S = 0.1


def png(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


# ---- what the script is told -----------------------------------------------------------------------

HERE = ["None", "Lanczos", "Nearest", "SeedVR2"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], SdUpscale(64, "None", 2.0, "None")),
        (["", 8, "Lanczos", 2], SdUpscale(8, "Lanczos", 2.0, "Lanczos")),
        (["", 8, 2, 1.5], SdUpscale(8, "Nearest", 1.5, "Nearest")),
        ([None, "16", "1", "3"], SdUpscale(16, "Lanczos", 3.0, "Lanczos")),
        ([None, None, None, None, "more"], SdUpscale(64, "None", 2.0, "None")),
        (["", 64.0, "R-ESRGAN 4x+", 4], SdUpscale(64, "Lanczos", 4.0, "R-ESRGAN 4x+")),
    ],
)
def test_script_arguments_are_read_in_a1111s_order(args: list[Any], expected: SdUpscale) -> None:
    assert script_of(args, HERE) == expected


def test_script_info_lists_the_arguments_of_sd_upscale() -> None:
    (script,) = SCRIPT_INFO
    labels = [argument["label"] for argument in script["args"]]
    assert labels == ["", "Tile overlap", "Upscaler", "Scale Factor"]
    assert [argument["value"] for argument in script["args"]][1:] == [64, "None", 2]


# ---- over the wire ---------------------------------------------------------------------------------

gateway, client = fixtures(fake_script={"step_seconds": 0.001})
slow_gateway, slow = fixtures("slow_gateway", "slow", fake_script={"step_seconds": STEP_S})
BEFORE = noise((96, 72))
UPSCALE = {
    **SMALL,
    "init_images": [png(BEFORE)],
    "script_name": "SD upscale",
    "script_args": ["", 16, "Lanczos", 2],
    "seed": 3,
}


def info_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(json.loads(answer.json()["info"]))


@pytest.mark.parametrize(
    ("args", "size", "filter"),
    [
        (["", 16, "Lanczos", 2], (192, 144), Image.Resampling.LANCZOS),
        (["", 8, 2, 3.3], (312, 232), Image.Resampling.NEAREST),
        (["", 0, 0, 2], (96, 72), None),
        (["", 16, "LDSR", 0.5], (48, 32), Image.Resampling.LANCZOS),
    ],
)
def test_sd_upscale_without_denoising_only_enlarges_the_image(
    client: httpx.Client, args: list[Any], size: tuple[int, int], filter: Image.Resampling | None
) -> None:
    answer = client.post("img2img", json={**UPSCALE, "script_args": args, "denoising_strength": 0})
    found = opened(base64.b64decode(answer.json()["images"][0]))
    expected = BEFORE if filter is None else BEFORE.resize(size, filter)
    assert found.size == size
    assert ImageChops.difference(found, expected).getbbox() is None
    told = {item["param"]: item["used"] for item in info_of(answer)["adjustments"]}
    assert told.get("script_args.upscaler") == ("Lanczos" if args[2] == "LDSR" else None)
    assert told.get("script_args.scale_factor") == (1 if args[2] == 0 else None)


def test_sd_upscale_draws_n_iter_images_in_one_job_with_a1111s_infotext(client: httpx.Client) -> None:
    body = {**UPSCALE, "script_name": "sd upscale", "n_iter": 2, "batch_size": 3, "denoising_strength": 0.5}
    answer = client.post("img2img", json=body)
    info, pictures = info_of(answer), [opened(base64.b64decode(image)) for image in answer.json()["images"]]
    assert [picture.size for picture in pictures] == [(192, 144)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert (info["all_seeds"], info["width"], info["height"]) == ([3, 4], 64, 64)
    assert info["extra_generation_params"] == {"SD upscale overlap": 16, "SD upscale upscaler": "Lanczos"}
    assert "SD upscale overlap: 16, SD upscale upscaler: Lanczos" in info["infotexts"][0]
    assert "Size: 64x64" in info["infotexts"][0]
    again = client.post("img2img", json={**body, "n_iter": 1, "seed": 4})
    assert opened(base64.b64decode(again.json()["images"][0])).tobytes() == pictures[1].tobytes()


def test_sd_upscale_is_listed_with_its_arguments(client: httpx.Client) -> None:
    assert client.get("scripts").json() == {"txt2img": [], "img2img": ["sd upscale"]}
    (script,) = client.get("script-info").json()
    assert (script["name"], script["is_alwayson"], script["is_img2img"]) == ("sd upscale", False, True)
    assert script["args"][2]["choices"] == [row["name"] for row in client.get("upscalers").json()][:3]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"script_args": ["", 16, "no such", 2]}, 500, "could not find upscaler named no such"),
        ({"script_args": ["", 16, 99, 2]}, 500, "could not find upscaler named 99"),
        ({"script_args": ["", 16, {"a": 1}, 2]}, 422, "script_args"),
        ({"script_args": ["", 16, "SeedVR2", 2]}, 422, "extra-single-image"),
        ({"script_args": ["", 64, 1, 2]}, 422, "may overlap by 0 to 63 pixels"),
        ({"script_args": ["", -1, 1, 2]}, 422, "script_args"),
        ({"script_args": ["", 16, 1, 0]}, 422, "above 0"),
        ({"script_args": ["", 16, 1, 1e308]}, 422, "at most 64"),
        ({"script_args": ["", 16, 1, 60]}, 422, "The result would be 5760x4320; it may have"),
        ({"script_args": ["", "many", 1, 1]}, 422, "script_args"),
        ({"script_args": {"overlap": 1}}, 422, "script_args"),
        ({"script_args": ["", 16, 1, 20]}, 422, "at most 256 tiles"),
        ({"mask": png(Image.new("L", (96, 72), "white"))}, 422, "mask"),
        ({"width": 10**9}, 422, "width must be between 64 and 8192"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True, "module": "canny"}]}}}, 422, "ControlNet"),
        (
            {"script_name": None, "alwayson_scripts": {"SD upscale": {"args": []}}},
            422,
            "Cannot have a selectable script",
        ),
        ({"script_name": "sd upscale 2"}, 422, "Script 'sd upscale 2' not found"),
        ({"init_images": []}, 404, "Init image not found"),
    ],
)
def test_sd_upscale_arguments_that_cannot_be_honoured_are_refused_by_name(
    client: httpx.Client, changes: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("img2img", json={**UPSCALE, **changes})
    assert answer.status_code == status, answer.text
    assert said in answer.text


def test_txt2img_has_no_sd_upscale(client: httpx.Client) -> None:
    assert client.post("txt2img", json={**SMALL, "script_name": "SD upscale"}).status_code == 422


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def at_tile(client: httpx.Client, number: int) -> dict[str, Any]:
    while True:
        body: dict[str, Any] = client.get("progress").json()
        if body["state"]["job_no"] >= number and body["state"]["sampling_step"]:
            return body
        time.sleep(0.02)


def test_progress_covers_all_tiles_and_an_interrupt_ends_the_job_within_a_step(
    slow: httpx.Client, background: ThreadPoolExecutor
) -> None:
    answer = background.submit(slow.post, "img2img", json={**UPSCALE, "denoising_strength": 0.5})
    body = at_tile(slow, 2)
    state = body["state"]
    assert (state["job_count"], state["sampling_steps"]) == (12, 2)
    assert 1 <= state["sampling_step"] <= 2
    assert 2 / 12 < body["progress"] < 1
    began = time.monotonic()
    slow.post("interrupt")
    assert answer.result().json()["images"] == []
    assert time.monotonic() - began < 10


def test_a_skip_leaves_the_remaining_tiles_only_enlarged(slow: httpx.Client, background: ThreadPoolExecutor) -> None:
    answer = background.submit(slow.post, "img2img", json=UPSCALE)
    at_tile(slow, 1)
    slow.post("skip")
    found = opened(base64.b64decode(answer.result().json()["images"][0]))
    plain = BEFORE.resize((192, 144), Image.Resampling.LANCZOS)
    corner = (160, 120, 192, 144)
    assert found.crop(corner).tobytes() == plain.crop(corner).tobytes()
    assert found.crop((0, 0, 40, 40)).tobytes() != plain.crop((0, 0, 40, 40)).tobytes()


def test_a_job_whose_engine_dies_in_a_tile_is_drawn_all_the_same(tmp_path: Path) -> None:
    """The job is claimed again and drawn whole."""
    script = {"crash_in": "decode", "crash_times": 1, "counter_path": str(tmp_path / "count")}
    with live(tmp_path, fake_script=script) as running:
        body = {**UPSCALE, "denoising_strength": 0.5}
        first, second = (httpx.post(f"{running.url}/sdapi/v1/img2img", json=body, timeout=100) for _ in range(2))
    assert (tmp_path / "count").stat().st_size == 1
    assert opened(base64.b64decode(first.json()["images"][0])).size == (192, 144)
    assert first.json()["images"] == second.json()["images"]
