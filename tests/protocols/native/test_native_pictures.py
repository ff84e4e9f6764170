"""Pictures by /api/v1: uploads, masks, fetching by id and in other formats."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest
from PIL import Image

from tests.support.live import Live, live
from tests.support.native import SMALL, client_of, ended, submit

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("pictures")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as client:
        yield client


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def pixel(data: bytes, at: tuple[int, int] = (32, 32)) -> tuple[int, ...]:
    found = Image.open(io.BytesIO(data)).convert("RGB").getpixel(at)
    assert isinstance(found, tuple)
    return found


def picture_of(client: httpx.Client, job_id: str) -> bytes:
    assert ended(client, job_id)["status"] == "completed"
    return client.get(f"/jobs/{job_id}/images/0").content


def test_upload_is_used_as_input_picture_by_its_id(client: httpx.Client) -> None:
    as_form = client.post("/uploads", files={"image": ("red.png", png(RED), "image/png")})
    as_json = client.post("/uploads", json={"image": base64.b64encode(png(RED)).decode()})
    assert as_form.status_code == 200, as_form.text
    told = as_form.json()
    assert (told["width"], told["height"]) == (64, 64)
    assert told["bytes"] > 0
    assert datetime.fromisoformat(told["expires_at"]).tzinfo is not None
    assert as_json.json()["id"] == told["id"], "an upload is named by what it shows"
    job = submit(client, init_images=[told["id"]], image_strength=0.0)
    assert pixel(picture_of(client, job["job_id"])) == RED


def test_mask_selects_what_is_repainted(client: httpx.Client) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    out = io.BytesIO()
    mask.save(out, "PNG")
    upload = client.post("/uploads", files={"image": ("mask.png", out.getvalue(), "image/png")}).json()["id"]
    red = base64.b64encode(png(RED)).decode()
    data = picture_of(client, submit(client, init_images=[red], mask=upload, image_strength=1.0)["job_id"])
    assert pixel(data, (48, 32)) == RED
    assert pixel(data, (16, 32)) != RED
    refused = client.post("/generate", json={**SMALL, "mask": red})
    assert refused.json()["details"] == {"param": "mask"}


def test_inputs_that_the_model_cannot_use_are_refused_by_name(client: httpx.Client) -> None:
    red = base64.b64encode(png(RED)).decode()
    refused = client.post("/generate", json={**SMALL, "reference_images": [red] * 17})
    assert (refused.status_code, refused.json()["details"]["param"]) == (400, "reference_images")


def test_uploads_that_are_not_pictures_are_refused(client: httpx.Client) -> None:
    refusals = [
        client.post("/uploads", json={"image": "aGVsbG8="}),
        client.post("/uploads", json={"image": "http://127.0.0.1/x.png"}),
        client.post("/uploads", json={}),
        client.post("/uploads", files={"image": ("x.png", b"", "image/png")}),
        client.post("/uploads", files={"image": ("x.png", b"hello", "image/png")}),
        client.post("/uploads", files={"other": ("x.png", png(RED), "image/png")}),
        client.post("/uploads", files=[("image", ("x.png", png(RED), "image/png"))] * 2),
        client.post("/uploads", content=b"nonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}),
        client.post("/uploads", content=b"nonsense", headers={"Content-Type": "multipart/form-data"}),
    ]
    for refused in refusals:
        assert refused.status_code == 400, refused.text
        assert refused.json()["code"] in ("INVALID_PARAM", "REMOTE_IMAGES_DISABLED")
    unknown = client.post("/generate", json={**SMALL, "init_images": ["0" * 64]})
    assert (unknown.status_code, unknown.json()["details"]) == (400, {"param": "init_images"})


def test_a_picture_is_fetched_by_its_id_in_the_format_that_is_asked_for(client: httpx.Client) -> None:
    job = ended(client, submit(client, num_images=2)["job_id"])
    assert job["image_ids"] == [f"{job['id']}-0", f"{job['id']}-1"]
    by_id, by_job = client.get(f"/images/{job['id']}-1"), client.get(f"/jobs/{job['id']}/images/1")
    assert by_id.content == by_job.content
    assert by_id.headers["content-disposition"] == f'inline; filename="{job["id"]}-1.png"'
    for kind in ("jpeg", "webp"):
        other = client.get(f"/images/{job['id']}-1", params={"format": kind, "quality": 50})
        assert other.headers["content-type"] == f"image/{kind}"
        assert Image.open(io.BytesIO(other.content)).format == kind.upper()
    again = client.get(f"/images/{job['id']}-1", headers={"If-None-Match": by_id.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/images/{job['id']}-1", params={"format": "gif"}).json()["details"]["param"] == "format"
    for unknown in (f"{job['id']}-2", f"{job['id']}", "../x", "0" * 32 + "-0", f"{job['id']}-99999"):
        assert client.get(f"/images/{unknown}").status_code == 404


def test_pictures_and_previews_are_404_for_another_client(gateway: Live, client: httpx.Client) -> None:
    """S-23."""
    job = ended(client, submit(client)["job_id"])
    with client_of(gateway.url) as other:
        for path in (f"/images/{job['id']}-0", f"/jobs/{job['id']}/images/0", f"/jobs/{job['id']}/preview"):
            assert (other.get(path).status_code, other.get(path).json()["code"]) == (404, "JOB_NOT_FOUND")


def test_lora_scale_of_zero_stays_zero_and_is_not_one() -> None:
    """A LoRA at scale 0 is a LoRA that changes nothing."""
    from adapters.native.request_schemas import GenerateBody
    from adapters.native.requests import to_loras

    body = GenerateBody(prompt="x", lora_files=["night", "day"], lora_scales=0.0)
    assert [(lora.name, lora.scale) for lora in to_loras(body)] == [("night", 0.0), ("day", 0.0)]
