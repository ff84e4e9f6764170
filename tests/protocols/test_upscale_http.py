"""Upscaling with a model: by /api/v1 as a job with events and history, by /sdapi's extras as A1111's clients ask."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.live import Live, live
from tests.support.native import SMALL, client_of, ended, events, submit


def picture(size: tuple[int, int] = (48, 32), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    made = Image.linear_gradient("L").resize(size).convert(mode)
    if mode == "RGBA":
        made.putalpha(Image.radial_gradient("L").resize(size))
    made.save(out, "PNG")
    return out.getvalue()


PNG = base64.b64encode(picture()).decode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("upscale")
    weights = folder / "models" / "seedvr2-3b" / "transformer"
    weights.mkdir(parents=True)
    (weights / "0.safetensors").touch()
    config = {"models": {"cache_dir": str(folder / "models"), "auto_download": False}}
    with live(folder, config=config, fake_script={"step_seconds": 0.005}) as running:
        yield running


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as made:
        yield made


@pytest.fixture
def extras(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/sdapi/v1/", timeout=60) as made:
        yield made


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.size


def upscaled(client: httpx.Client, **said: Any) -> dict[str, Any]:
    answer = client.post("/upscale", json={"image": PNG, **said})
    assert answer.status_code == 200, answer.text
    return ended(client, answer.json()["job_id"])


def test_a_picture_becomes_larger_as_a_job_with_its_events(client: httpx.Client) -> None:
    job = upscaled(client, scale=2, seed=5)
    assert (job["type"], job["status"], job["model"]) == ("upscale", "completed", "seedvr2")
    assert (job["width"], job["height"], job["seeds"]) == (96, 64, [5])
    assert size_of(client.get(f"/jobs/{job['id']}/images/0").content) == (96, 64)
    told = [event["event"] for event in events(client, job["id"])]
    assert (told[0], told[-1]) == ("queued", "complete")
    assert job["id"] in [row["id"] for row in client.get("/jobs").json()["jobs"]]
    again = client.post(f"/jobs/{job['id']}/retry").json()
    assert ended(client, again["id"])["status"] == "completed"


def test_uploads_and_pictures_of_ours_are_upscaled_by_their_ids(client: httpx.Client) -> None:
    upload = client.post("/uploads", json={"image": PNG}).json()["id"]
    assert upscaled(client, image=upload, width=144)["height"] == 96
    drawn = ended(client, submit(client)["job_id"])
    larger = upscaled(client, image=drawn["image_ids"][0], scale=1.5)
    assert (larger["width"], larger["height"]) == (SMALL["width"] * 1.5, SMALL["height"] * 1.5)
    with client_of(str(client.base_url).removesuffix("/api/v1/")) as other:
        assert other.post("/upscale", json={"image": drawn["image_ids"][0]}).status_code == 404


def test_what_is_enlarged_still_says_how_it_was_drawn(client: httpx.Client) -> None:
    drawn = ended(client, submit(client, prompt="an origin of its own", seed=7)["job_id"])
    file = client.get(drawn["image_urls"][0].removeprefix("/api/v1")).content
    form = client.post("/upscale", data={"scale": "2"}, files={"image": ("x.png", file)}).json()
    said = {"image": base64.b64encode(file).decode()}
    for larger in (ended(client, form["id"]), upscaled(client, **said), upscaled(client, image=drawn["image_ids"][0])):
        enlarged = client.get(larger["image_urls"][0].removeprefix("/api/v1")).content
        found = client.post("/images/drawing", files={"image": ("x.png", enlarged)}).json()["drawing"]
        assert (found["prompt"], found["seed"], found["width"]) == ("an origin of its own", 7, SMALL["width"])
        assert (found["enlarged"]["model"], found["enlarged"]["width"]) == ("seedvr2", SMALL["width"] * 2)
        listed = client.get("/images", params={"search": "ORIGIN own"}).json()["images"]
        assert {row["job_id"]: row["drawing"] for row in listed}[larger["id"]] == found


def test_what_said_nothing_still_says_nothing(client: httpx.Client) -> None:
    upscaled(client)
    assert client.get("/images", params={"limit": 1}).json()["images"][0]["drawing"] is None


def test_a_form_says_the_same(client: httpx.Client) -> None:
    answer = client.post("/upscale", data={"scale": "3", "seed": "1"}, files={"image": ("x.png", picture())})
    assert (answer.json()["width"], answer.json()["seeds"]) == (144, [1])


@pytest.mark.parametrize(
    ("said", "status", "param"),
    [
        ({"video": "x"}, 400, "video"),
        ({"image": "data:video/mp4;base64,AAAA"}, 400, "image"),
        ({"image": base64.b64encode(b"\0\0\0\x18ftypmp42" + bytes(64)).decode()}, 400, "image"),
        ({"image": "https://example.com/x.png"}, 400, "image"),
        ({"image": "0" * 64}, 400, "image"),
        ({"scale": 0.5}, 400, "scale"),
        ({"width": 10}, 400, "width"),
        ({"softness": 2}, 400, "softness"),
        ({"model": "flux2-tiny"}, 400, "model"),
        ({"model": "seedvr2-7b"}, 404, "model"),
        ({"model": "seedvr2-video"}, 404, "model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: httpx.Client, said: dict[str, Any], status: int, param: str
) -> None:
    refused = client.post("/upscale", json={"image": PNG, **said})
    assert (refused.status_code, refused.json()["details"]["param"]) == (status, param)


def test_no_protocol_draws_with_it_or_lists_it_among_what_draws(client: httpx.Client, gateway: Live) -> None:
    assert client.post("/generate", json={**SMALL, "model": "seedvr2"}).status_code == 400
    rows = {row["title"]: row for row in client.get("/models").json()["models"]}
    assert rows["seedvr2"]["downloaded"]
    checkpoints = httpx.get(f"{gateway.url}/sdapi/v1/sd-models").json()
    served = httpx.get(f"{gateway.url}/v1/models").json()["data"]
    assert not any("seedvr2" in str(row) for row in (*checkpoints, *served, *httpx.get(f"{gateway.url}/api/ls").json()))


def test_a_running_one_is_cancelled(gateway: Live, client: httpx.Client) -> None:
    job = client.post("/upscale", json={"image": PNG}).json()["job_id"]
    assert client.delete(f"/jobs/{job}").json()["status"] in ("cancelled", "completed")


@pytest.mark.parametrize(
    ("said", "size", "html"),
    [
        ({"upscaling_resize": 2}, (96, 64), "<p>Postprocess upscale by: 2, Postprocess upscaler: SeedVR2</p>"),
        (
            {"resize_mode": 1, "upscaling_resize_w": 128, "upscaling_resize_h": 128},
            (128, 128),
            "<p>Postprocess upscale to: 128x128, Postprocess crop to: 128x128, Postprocess upscaler: SeedVR2</p>",
        ),
        (
            {"upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5},
            (96, 64),
            "<p>Postprocess upscale by: 2, Postprocess upscaler: SeedVR2, Postprocess upscaler 2: Nearest</p>",
        ),
    ],
)
def test_extras_do_it_as_a1111_would(
    extras: httpx.Client, said: dict[str, Any], size: tuple[int, int], html: str
) -> None:
    assert [row["name"] for row in extras.get("upscalers").json()] == ["None", "Lanczos", "Nearest", "SeedVR2"]
    found = extras.post("extra-single-image", json={"image": PNG, "upscaler_1": "SeedVR2", **said}).json()
    assert (size_of(base64.b64decode(found["image"])), found["html_info"]) == (size, html)


def test_extras_do_several_and_keep_what_is_transparent(extras: httpx.Client) -> None:
    clear = base64.b64encode(picture(mode="RGBA")).decode()
    listed = [{"data": PNG, "name": "a"}, {"data": clear, "name": "b"}]
    found = extras.post("extra-batch-images", json={"imageList": listed, "upscaler_1": "SeedVR2"}).json()["images"]
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as opened:
        assert (opened.size, opened.mode) == ((96, 64), "RGBA")


def test_batch_of_extras_with_an_idempotency_key_is_upscaled_once(gateway: Live) -> None:
    owner = {"X-Client-Id": "batch", "Idempotency-Key": "once"}
    body = {"imageList": [{"data": PNG}, {"data": base64.b64encode(picture((64, 32))).decode()}]}
    with httpx.Client(base_url=gateway.url, timeout=60, headers=owner) as client:
        first, again = (
            client.post("/sdapi/v1/extra-batch-images", json={**body, "upscaler_1": "SeedVR2"}).json() for _ in range(2)
        )
        assert len(first["images"]) == 2
        assert first["images"] == again["images"]
        assert len(client.get("/api/v1/jobs").json()["jobs"]) == 2


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"upscaling_resize": 0.5}, 422),
        ({"upscaling_resize": 300}, 422),
        ({"upscaler_2": "SeedVR2"}, 422),
        ({"upscaler_1": "SeedVR2 7B"}, 404),
    ],
)
def test_extras_refuse_what_the_model_cannot_do(extras: httpx.Client, said: dict[str, Any], status: int) -> None:
    refused = extras.post("extra-single-image", json={"image": PNG, "upscaler_1": "SeedVR2", **said})
    assert refused.status_code == status
