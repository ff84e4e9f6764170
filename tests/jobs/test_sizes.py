"""Sizes: 3840x2160 in every protocol, absurd ones refused by name, and no large picture that nobody asked for."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from engine.catalog import CATALOG
from engine.client.options import EngineOptions
from engine.client.turn import Deadline, size_factor
from engine.protocol import Decoding, ModelLoaded, SecondPass, StepDone
from gateway.errors import InvalidRequest
from gateway.jobs.resolve import GenerationRequest, Limits, Resolution, resolve
from gateway.residency.footprint import guess
from tests.support.engine import plan
from tests.support.live import Live, live
from tests.support.native import client_of, ended
from tests.support.sdapi import TINY
from tests.support.v1 import assert_openai_error, openai_client

WIDE, TALL = (3840, 2160), (2160, 3840)
PROMPT = {"prompt": "a red circle", "steps": 4}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("sizes")) as started:
        yield started


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=100) as made:
        yield made


def size_of(data: bytes | str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data)) as picture:
        picture.load()
        return picture.size


def photo(size: tuple[int, int], format: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, format)
    return out.getvalue()


def bounded(limits: Limits, **said: Any) -> Resolution:
    """What is resolved of a request to the embedded model."""
    return resolve(GenerationRequest(prompt="x", **said), TINY, limits, random_seed=lambda: 7)


def as_json(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---- drawn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_openai_protocol_draws_its_largest_image_sizes(gateway: Live, size: tuple[int, int]) -> None:
    with openai_client(gateway) as counting:
        answer = counting.client.images.generate(
            prompt="x", size=f"{size[0]}x{size[1]}", n=2, response_format="b64_json"
        )
    assert answer.size == f"{size[0]}x{size[1]}"
    assert [size_of(row.b64_json or "") for row in answer.data or []] == [size, size]


def test_openai_protocol_streams_and_edits_at_its_largest_image_size(gateway: Live, client: httpx.Client) -> None:
    with openai_client(gateway) as counting:
        events = list(
            counting.client.images.generate(prompt="x", size="3840x2160", stream=True, partial_images=1)  # type: ignore[call-overload]
        )
    assert [size_of(event.b64_json) for event in events] == [WIDE, WIDE]
    files = {"image": photo(WIDE)}
    answer = client.post("/v1/images/edits", data={"prompt": "x", "size": "2160x3840"}, files=files)
    assert size_of(answer.json()["data"][0]["b64_json"]) == TALL


def test_a1111_large_image_is_drawn_by_hires_fix_and_by_inpainting(client: httpx.Client) -> None:
    hires = {**PROMPT, "width": 960, "height": 544, "enable_hr": True, "hr_resize_x": 3840, "hr_resize_y": 2160}
    answer = client.post("/sdapi/v1/txt2img", json=hires).json()
    assert size_of(answer["images"][0]) == WIDE
    mask = Image.new("L", WIDE)
    mask.paste(255, (100, 100, 900, 900))
    out = io.BytesIO()
    mask.save(out, "PNG")
    body = {
        **PROMPT,
        "width": 3840,
        "height": 2160,
        "init_images": [as_json(photo(WIDE))],
        "mask": as_json(out.getvalue()),
    }
    flat = {"inpaint_full_res": False, "inpainting_fill": 1, "mask_blur": 0}
    answer = client.post("/sdapi/v1/img2img", json={**body, **flat}).json()
    assert size_of(answer["images"][0]) == WIDE


def test_native_api_draws_a_large_image_and_shows_a_small_preview(gateway: Live) -> None:
    with client_of(gateway.url) as native:
        job = native.post("/generate", json={**PROMPT, "width": 3840, "height": 2160, "preview": True}).json()
        assert job["eta_seconds"] is None or job["eta_seconds"] > 0
        done = ended(native, job["job_id"])
        assert (done["status"], done["width"], done["height"]) == ("completed", *WIDE)
        path = f"/jobs/{job['job_id']}/images/0"
        assert size_of(native.get(path).content) == WIDE
        assert size_of(native.get(path, params={"max_px": 360, "format": "webp"}).content) == (360, 203)


def test_mflux_server_protocol_draws_a_large_image(client: httpx.Client) -> None:
    job = client.post("/api/generate", json={"prompt": "x", "width": 3840, "height": 2160}).json()
    task = {"task_id": job["task_id"]}
    while client.get("/api/status", params=task).json()["status"] != "done":
        time.sleep(0.05)
    assert size_of(client.get("/api/image", params=task).content) == WIDE


# ---- refused ---------------------------------------------------------------------------------------

ABSURD = [(10**9, 64), (64, 100_000), (16, 100_000), (-512, 512), (512, 0), (8192, 8192), (8208, 64)]


@pytest.mark.parametrize(("width", "height"), ABSURD)
def test_image_sizes_that_are_absurd_have_a_clear_error_in_each_protocol(
    client: httpx.Client, width: int, height: int
) -> None:
    body = {**PROMPT, "width": width, "height": height}
    start = {**body, "init_images": [as_json(photo((64, 64)))]}
    native = client.post("/api/v1/generate", json=body)
    assert native.status_code == 400
    said = native.json()["error"]
    assert "between 64 and 8192; " in said or "at most 8847360 pixels; 8192x8192 has 67108864." in said
    for path, sent in (("txt2img", body), ("img2img", start), ("img2img", {**start, "mask": start["init_images"][0]})):
        a1111 = client.post(f"/sdapi/v1/{path}", json=sent)
        assert a1111.status_code == 422
        assert a1111.json()["detail"][0]["msg"] == said
        assert a1111.json()["detail"][0]["loc"][1] in ("width", "height")
    mflux = client.post("/api/generate", json=body)
    assert mflux.status_code == 400
    assert said in mflux.text
    sides = {"prompt": "x", "width": width, "height": height}
    assert assert_openai_error(client.post("/v1/images/generations", json=sides), 400)["message"] == said
    files = {"image": photo((64, 64))}
    assert assert_openai_error(client.post("/v1/images/edits", data=sides, files=files), 400)["message"] == said
    sized = client.post("/v1/images/generations", json={"prompt": "x", "size": f"{width}x{height}"})
    assert assert_openai_error(sized, 400)["param"] == "size"
    hires = {**PROMPT, "enable_hr": True, "hr_resize_x": width, "hr_resize_y": height}
    second = client.post("/sdapi/v1/txt2img", json=hires)
    if height:
        assert (second.status_code, second.json()["detail"][0]["loc"][1]) == (422, "hr_resize_x")
    else:
        assert second.status_code == 200, "the side that is 0 keeps the proportions"


@pytest.mark.parametrize("factor", [1e308, -1e308, 1e9])
def test_upscale_factors_out_of_bounds_are_refused(client: httpx.Client, factor: float) -> None:
    hires = client.post("/sdapi/v1/txt2img", json={**PROMPT, "enable_hr": True, "hr_scale": factor})
    assert (hires.status_code, hires.json()["detail"][0]["loc"][1]) == (422, "hr_scale")
    extras = {"image": as_json(photo((64, 64))), "upscaler_1": "Lanczos", "upscaling_resize": factor}
    answer = client.post("/sdapi/v1/extra-single-image", json=extras)
    assert answer.status_code == 422


@pytest.mark.parametrize("size", [(1001, 777), (2049, 65)])
def test_image_sizes_that_are_odd_are_rounded_down_and_reported(client: httpx.Client, size: tuple[int, int]) -> None:
    used = (size[0] // 16 * 16, size[1] // 16 * 16)
    answer = client.post("/v1/images/generations", json={"prompt": "x", "size": f"{size[0]}x{size[1]}"}).json()
    assert answer["size"] == f"{used[0]}x{used[1]}"
    told = {item["param"]: item["used"] for item in answer["adjustments"]}
    assert told == {"width": used[0], "height": used[1], "size": "128x128"}


def test_job_images_are_limited_in_total_pixels() -> None:
    assert len(bounded(Limits(), width_px=3840, height_px=2160, count=10).plan.seeds) == 10
    with pytest.raises(InvalidRequest, match="x pictures must be at most 20000000; 24883200 were asked") as caught:
        bounded(Limits(max_job_pixels=20_000_000), width_px=3840, height_px=2160, count=3)
    assert caught.value.param == "count"


def test_image_size_is_limited_by_the_settings_and_by_the_model() -> None:
    spec = CATALOG[0]
    assert Limits(max_px=4096).of(spec).max_px == 4096
    assert Limits().of(spec.model_copy(update={"max_px": 2048, "max_pixels": 10_000})).max_pixels == 10_000
    with pytest.raises(InvalidRequest, match=r"width must be between 64 and 4096; 4112 was asked\."):
        bounded(Limits(max_px=4096), width_px=4112, height_px=64)


# ---- what nobody asked for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "path", "more", "used"),
    [
        ((6000, 4000), "edits", {}, "2048x1360"),
        ((2304, 1600), "variations", {}, "2048x1408"),
        ((2304, 1600), "edits", {"size": "auto"}, "2048x1408"),
    ],
)
def test_openai_input_image_without_a_size_is_drawn_no_larger_than_before(
    client: httpx.Client, size: tuple[int, int], path: str, more: dict[str, str], used: str
) -> None:
    answer = client.post(f"/v1/images/{path}", data={"prompt": "x", **more}, files={"image": photo(size)}).json()
    assert answer["size"] == used
    assert answer["adjustments"][0]["param"] == "size"


def test_init_image_without_a_size_is_drawn_at_the_model_default_in_other_protocols(
    gateway: Live, client: httpx.Client
) -> None:
    sent = {**PROMPT, "init_images": [as_json(photo((3000, 2000)))]}
    assert size_of(client.post("/sdapi/v1/img2img", json=sent).json()["images"][0]) == (512, 512)
    with client_of(gateway.url) as native:
        job = native.post("/generate", json=sent).json()
        assert (job["width"], job["height"]) == (128, 128)


# ---- time and memory -------------------------------------------------------------------------------


def test_large_pictures_have_longer_deadlines() -> None:
    usual, wide = plan(width_px=2048, height_px=2048), plan(width_px=3840, height_px=2160)
    second = SecondPass(width_px=3840, height_px=2160, steps=4, denoise=0.5)
    assert (size_factor(usual), size_factor(wide)) == (1, 3840 * 2160 / 2048**2)
    assert size_factor(plan(second_pass=second)) == size_factor(wide)
    deadline = Deadline(
        EngineOptions(first_step_s=100, decode_s=10, step_floor_s=6), size_factor=2.0, resets_after_decoding=True
    )
    deadline.on_fact(ModelLoaded(model="m", seconds=1))
    assert deadline.allowance_s == 200
    deadline.on_fact(StepDone(image=0, step=1, steps=8, seconds=1))
    assert deadline.allowance_s == 10
    deadline.on_fact(Decoding(image=0))
    assert deadline.allowance_s == 20
    deadline.on_fact(StepDone(image=0, step=5, steps=8, seconds=60))
    assert deadline.allowance_s == 600, "steps of the first pass are no measure of the second"


def test_a_large_picture_takes_as_much_more_memory_as_it_is_larger() -> None:
    spec = next(row for row in CATALOG if row.name == "flux2-klein-4b")
    pictures = [
        guess(plan(width_px=width, height_px=height), spec, disk_bytes=None, is_float32=False).image
        for width, height in ((1920, 1080), WIDE)
    ]
    assert pictures[1] / pictures[0] == pytest.approx(4, rel=0.1)
