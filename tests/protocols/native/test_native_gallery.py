"""/api/v1/images: pictures listed, searched, made small, removed, and asked how they were drawn."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from gateway.images.file_texts import texts
from gateway.images.provenance import KEYWORD, drawing_in, signed
from gateway.jobs.drawing import Drawing
from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("gallery")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as client:
        yield client


def drawn(client: httpx.Client, **said: Any) -> dict[str, Any]:
    return ended(client, submit(client, **said)["job_id"])


def listed(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    answer = client.get("/images", params=asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["images"])


def a_png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    return out.getvalue()


def test_pictures_are_listed_newest_first_with_how_they_were_drawn(client: httpx.Client) -> None:
    first = drawn(client, prompt="a red circle", seed=7)
    second = drawn(client, prompt="a blue square", seed=8, num_images=2)
    found = listed(client)
    assert [picture["id"] for picture in found] == [*reversed(second["image_ids"]), *first["image_ids"]]
    assert [picture["seed"] for picture in found] == [9, 8, 7]
    assert found[-1]["drawing"] == {
        **{"prompt": "a red circle", "model": "flux2-tiny", "width": 64, "height": 64, "steps": 4, "guidance": 1.0},
        "seed": 7,
    }
    assert client.get(found[0]["url"].removeprefix("/api/v1")).status_code == 200


def test_picture_list_continues_page_by_page_and_ends(client: httpx.Client) -> None:
    jobs = [drawn(client)["image_ids"][0] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(5):
        page = client.get("/images", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
        seen += [picture["id"] for picture in page["images"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == list(reversed(jobs))
    assert cursor is None


def test_picture_search_finds_words_in_any_order_and_takes_no_pattern(client: httpx.Client) -> None:
    drawn(client, prompt="A Red circle, 100% sure")
    drawn(client, prompt="a blue square")
    assert [p["drawing"]["prompt"] for p in listed(client, search="sure red")] == ["A Red circle, 100% sure"]
    assert len(listed(client, search="100%")) == 1
    assert listed(client, search="%") == listed(client, search="100%")
    assert listed(client, search="a_blue") == []
    assert listed(client, search="prompt") == []
    assert len(listed(client, model="flux2-tiny")) == 2
    assert listed(client, model="flux2-klein-4b") == []
    assert listed(client, protocol="sdapi") == []


def test_a_removed_picture_is_gone_and_its_job_stays(client: httpx.Client) -> None:
    job = drawn(client, num_images=2)
    gone, left = job["image_ids"]
    assert client.delete(f"/images/{gone}").json() == {"id": gone, "deleted": True}
    assert client.get(f"/images/{gone}").status_code == 404
    assert client.delete(f"/images/{gone}").json()["code"] == "PICTURE_GONE"
    assert [picture["id"] for picture in listed(client)] == [left]
    assert client.get(f"/jobs/{job['job_id']}").json()["result"]["images"][0] is None


def test_pictures_of_another_client_cannot_be_seen_or_removed(gateway: Live, client: httpx.Client) -> None:
    """S-23."""
    (own,) = drawn(client)["image_ids"]
    with client_of(gateway.url) as other:
        assert listed(other) == []
        assert other.delete(f"/images/{own}").status_code == 404
    assert client.get(f"/images/{own}").status_code == 200


def test_thumbnail_has_the_requested_longer_edge(client: httpx.Client) -> None:
    (own,) = drawn(client, width=128, height=64)["image_ids"]
    answer = client.get(f"/images/{own}", params={"max_px": 32, "format": "webp"})
    assert Image.open(io.BytesIO(answer.content)).size == (32, 16)
    assert answer.headers["etag"] != client.get(f"/images/{own}", params={"format": "webp"}).headers["etag"]


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_picture_metadata_holds_the_drawing_settings_in_every_format(client: httpx.Client, picture_format: str) -> None:
    (own,) = drawn(client, prompt="ein grüner Stern ⭐", seed=5)["image_ids"]
    data = client.get(f"/images/{own}", params={"format": picture_format}).content
    asked = client.post("/images/drawing", json={"image": base64.b64encode(data).decode()}).json()
    assert asked["drawing"]["prompt"] == "ein grüner Stern ⭐"
    assert asked["drawing"]["seed"] == 5
    form = client.post("/images/drawing", files={"image": ("a.png", data)})
    assert form.json() == asked


def test_picture_of_the_openai_route_keeps_its_settings_stored_but_not_in_the_answer(
    gateway: Live, client: httpx.Client
) -> None:
    body = {"prompt": "a red circle", "size": "64x64", "response_format": "b64_json"}
    headers = {"X-Client-Id": client.headers["X-Client-Id"]}
    answer = httpx.post(f"{gateway.url}/v1/images/generations", json=body, headers=headers, timeout=60).json()
    sent = client.post("/images/drawing", json={"image": answer["data"][0]["b64_json"]}).json()
    assert sent["drawing"] is None
    (own,) = listed(client)
    kept = drawing_in(client.get(own["url"].removeprefix("/api/v1")).content)
    assert kept is not None
    assert kept.prompt == "a red circle"


def test_picture_settings_name_the_input_picture_and_it_can_be_fetched(client: httpx.Client) -> None:
    upload = client.post("/uploads", files={"image": ("a.png", a_png())}).json()["id"]
    drawn(client, init_images=[upload], image_strength=0.5)
    (found,) = listed(client)
    assert found["type"] == "img2img"
    assert found["drawing"]["init_image"] == upload
    assert found["drawing"]["image_strength"] == 0.5
    assert client.get(f"/uploads/{upload}").headers["content-type"] == "image/png"
    assert client.get(f"/uploads/{'0' * 64}").status_code == 404
    assert client.get("/uploads/passwd").status_code == 404


def test_picture_settings_are_read_only_from_metadata_we_signed() -> None:
    plain = a_png()
    said = Drawing(prompt="p", model="m", width=1, height=1, steps=1, guidance=1, seed=1)
    assert drawing_in(signed(plain, said)) == said
    assert KEYWORD in texts(signed(plain, said))
    for wrong in ({"steps": 0}, {"guidance": float("nan")}, {"guidance": float("inf")}):
        assert drawing_in(signed(plain, said.model_copy(update=wrong))) is None
    for other in (plain, b"", b"GIF89a", signed(plain, said)[:60]):
        assert drawing_in(other) is None


def test_picture_metadata_is_left_out_when_the_settings_forbid_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = {"generation": {"sign_pictures": False}}
    with live(tmp_path_factory.mktemp("unsigned"), config=config) as gateway, client_of(gateway.url) as client:
        (own,) = drawn(client)["image_ids"]
        assert drawing_in(client.get(f"/images/{own}").content) is None


def test_models_say_what_they_can_do(client: httpx.Client) -> None:
    models = {model["title"]: model for model in client.get("/models").json()["models"]}
    tiny, klein = models["flux2-tiny"]["capabilities"], models["flux2-klein-base-4b"]["capabilities"]
    assert (tiny["default_px"], tiny["native_px"], tiny["default_steps"], tiny["max_steps"]) == (128, 128, 4, 8)
    assert not tiny["guidance"]
    assert klein["guidance"]
    assert klein["default_guidance"] == 4.0
    assert tiny["max_references"] == 2


def test_picture_list_contains_only_jobs_whose_files_exist(tmp_path: Path) -> None:
    with live(tmp_path) as gateway, client_of(gateway.url) as client:
        first, second = (ended(client, submit(client)["job_id"])["id"] for _ in range(2))
        assert [row["job_id"] for row in client.get("/images").json()["images"]] == [second, first]
        (file,) = (tmp_path / "output").glob(f"{second}.*")
        file.unlink()
        assert [row["job_id"] for row in client.get("/images").json()["images"]] == [first]
        assert client.get("/images", params={"search": "nothing-has-this"}).json()["images"] == []
        shutil.rmtree(tmp_path / "output")
        assert client.get("/images").json() == {"images": [], "next_cursor": None}
