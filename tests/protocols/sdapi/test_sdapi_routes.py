"""Every route of AUTOMATIC1111's API that needs no picture drawn, over a real socket: status and exact body."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from adapters.sdapi.sampling import LATENT_UPSCALERS
from gateway.images.png_chunks import with_text
from tests.support.live import Live
from tests.support.sdapi import INIT, SMALL, an_image, fixtures, opened

gateway, client = fixtures()


EXACT = [
    ("GET", "latent-upscale-modes", [{"name": name} for name in LATENT_UPSCALERS]),
    ("GET", "sd-vae", []),
    ("GET", "hypernetworks", []),
    ("GET", "face-restorers", []),
    ("GET", "realesrgan-models", []),
    ("GET", "prompt-styles", []),
    ("GET", "embeddings", {"loaded": {}, "skipped": {}}),
    ("GET", "scripts", {"txt2img": [], "img2img": ["sd upscale"]}),
    ("GET", "extensions", []),
    ("POST", "refresh-checkpoints", None),
    ("POST", "refresh-vae", None),
    ("POST", "refresh-loras", None),
    ("POST", "refresh-embeddings", None),
    ("POST", "interrupt", {}),
    ("POST", "unload-checkpoint", {}),
    ("POST", "reload-checkpoint", {}),
    ("GET", "../../internal/ping", {}),
    ("GET", "../../internal/pending-tasks", {"size": 0, "tasks": []}),
]


@pytest.mark.parametrize(("method", "path", "body"), EXACT, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("content", [None, b'""', b"{}"], ids=["none", "empty text", "object"])
def test_an_answer_is_exactly_a1111s(
    client: httpx.Client, method: str, path: str, body: Any, content: bytes | None
) -> None:
    response = client.request(method, path, content=content if method == "POST" else None)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.text == json.dumps(body, separators=(",", ":"))


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("samplers", {"name", "aliases", "options"}),
        ("schedulers", {"name", "label", "aliases", "default_rho", "need_inner_model"}),
        ("upscalers", {"name", "model_name", "model_path", "model_url", "scale"}),
        ("sd-models", {"title", "model_name", "hash", "sha256", "filename", "config"}),
    ],
)
def test_the_rows_of_a_list_have_all_their_keys(client: httpx.Client, path: str, keys: set[str]) -> None:
    rows = client.get(path).json()
    assert rows
    assert all(set(row) == keys for row in rows)


def test_loras_are_listed_by_the_names_used_in_prompts(client: httpx.Client) -> None:
    for row in client.get("loras").json():
        assert row == {"name": row["name"], "alias": row["name"], "path": f"{row['name']}.safetensors", "metadata": {}}


def test_upscalers_without_a_model_are_listed(client: httpx.Client) -> None:
    assert [row["name"] for row in client.get("upscalers").json()] == ["None", "Lanczos", "Nearest"]


def test_cmd_flags_name_no_secret_and_no_path(client: httpx.Client, gateway: Live) -> None:
    flags = client.get("cmd-flags").json()
    assert flags["api"] is True
    assert flags["api_auth"] is None
    assert "/" not in json.dumps(flags)


def test_memory_total_is_free_plus_used(client: httpx.Client) -> None:
    found = client.get("memory").json()
    assert found["cuda"] == {"error": "unavailable"}
    assert found["ram"]["free"] + found["ram"]["used"] == found["ram"]["total"]
    assert 2**20 < found["ram"]["used"] < found["ram"]["total"]


def test_an_unload_frees_the_model_and_the_next_picture_loads_it(client: httpx.Client) -> None:
    assert client.post("txt2img", json=SMALL).status_code == 200
    assert client.post("unload-checkpoint").json() == {}
    assert client.post("unload-checkpoint").json() == {}
    assert client.post("txt2img", json=SMALL).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("interrogate", {"image": INIT, "model": "clip"}, 501, "This gateway has no model that describes pictures."),
        ("interrogate", {"image": INIT, "model": "x"}, 404, "Model not found"),
        ("create/embedding", {"name": "x"}, 501, "This gateway does not train."),
        ("create/hypernetwork", {}, 501, "This gateway does not train."),
        ("train/embedding", {}, 501, "This gateway does not train."),
        ("train/hypernetwork", {}, 501, "This gateway does not train."),
    ],
)
def test_unsupported_routes_have_a1111s_error_shape(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    response = client.post(path, json=body)
    answer = response.json()
    assert response.status_code == status
    assert answer["error"] == "HTTPException"
    assert answer["detail"] == answer["errors"] == detail


@pytest.mark.parametrize("path", ["controlnet/nothing", "controlnet/detect", "internal/nothing"])
def test_unknown_routes_have_fastapis_404(gateway: Live, path: str) -> None:
    response = httpx.get(f"{gateway.url}/{path}")
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


def test_the_config_of_a1111s_page_is_json(gateway: Live) -> None:
    assert httpx.get(f"{gateway.url}/config").json()


def test_an_unknown_task_is_neither_queued_nor_completed(gateway: Live) -> None:
    answer = httpx.post(f"{gateway.url}/internal/progress", json={"id_task": "task(x)"}).json()
    assert (answer["active"], answer["queued"], answer["completed"]) == (False, False, False)
    assert answer["textinfo"] == "Waiting..."


# ---- extras ----------------------------------------------------------------------------------------


def extra(client: httpx.Client, image: str = INIT, **fields: Any) -> dict[str, Any]:
    response = client.post("extra-single-image", json={"image": image, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize(
    ("fields", "size", "html"),
    [
        ({}, (96, 64), ""),
        ({"upscaling_resize": 4}, (96, 64), ""),
        (
            {"upscaler_1": "Lanczos"},
            (192, 128),
            "<p>Postprocess upscale by: 2, Postprocess upscaler: Lanczos</p>",
        ),
        (
            {"upscaler_1": "Nearest", "upscaling_resize": "1.3"},
            (120, 80),
            "<p>Postprocess upscale by: 1.3, Postprocess upscaler: Nearest</p>",
        ),
        (
            {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 100, "upscaling_resize_h": 100},
            (100, 100),
            "<p>Postprocess upscale to: 100x100, Postprocess crop to: 100x100, Postprocess upscaler: Lanczos</p>",
        ),
        (
            {
                "upscaler_1": "Lanczos",
                "resize_mode": 1,
                "upscaling_resize_w": 128,
                "upscaling_resize_h": 128,
                "upscaling_crop": False,
            },
            (192, 128),
            "<p>Postprocess upscale to: 128x128, Postprocess upscaler: Lanczos</p>",
        ),
    ],
)
def test_picture_is_upscaled(client: httpx.Client, fields: dict[str, Any], size: tuple[int, int], html: str) -> None:
    found = extra(client, **fields)
    picture = opened(base64.b64decode(found["image"], validate=True))
    assert picture.size == size
    assert found["html_info"] == html
    assert found["adjustments"] == []
    assert picture.info.get("postprocessing", "") == html.removeprefix("<p>").removesuffix("</p>")


def test_two_upscalers_are_blended_and_the_infotext_survives(client: httpx.Client) -> None:
    png = with_text(an_image((64, 64)), "parameters", "ein Käse\nSteps: 4, Seed: 1, Size: 64x64")
    found = extra(
        client,
        base64.b64encode(png).decode(),
        upscaler_1="Lanczos",
        upscaler_2="Nearest",
        extras_upscaler_2_visibility=0.5,
    )
    assert "Postprocess upscaler 2: Nearest" in found["html_info"]
    assert opened(base64.b64decode(found["image"])).info["parameters"].startswith("ein Käse\n")


def test_several_pictures_keep_their_order(client: httpx.Client) -> None:
    listed = [{"data": INIT, "name": "a.png"}, {"data": base64.b64encode(an_image((32, 32))).decode(), "name": "b"}]
    response = client.post("extra-batch-images", json={"imageList": listed, "upscaler_1": "Nearest"})
    images = [opened(base64.b64decode(image)) for image in response.json()["images"]]
    assert [image.size for image in images] == [(192, 128), (64, 64)]


def test_face_restoration_is_left_out_with_an_adjustment(client: httpx.Client) -> None:
    (told,) = extra(client, codeformer_visibility=0.5)["adjustments"]
    assert (told["param"], told["asked"], told["used"]) == ("codeformer_visibility", 0.5, 0)


ALWAYS_THERE = ["ESRGAN_4x", "R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B", "SwinIR_4x", "SwinIR 4x", "LDSR", "ScuNET PSNR"]


@pytest.mark.parametrize("name", [*ALWAYS_THERE, "DAT x4", "Latent", "Latent (nearest-exact)"])
def test_a_common_upscaler_of_a1111_is_replaced_by_lanczos_with_an_adjustment(client: httpx.Client, name: str) -> None:
    found, plain = extra(client, upscaler_1=name), extra(client, upscaler_1="Lanczos")
    assert found["image"] == plain["image"]
    (told,) = found["adjustments"]
    assert (told["param"], told["asked"], told["used"]) == ("upscaler_1", name, "Lanczos")
    second = extra(client, upscaler_1="Nearest", upscaler_2=name, extras_upscaler_2_visibility=0.5)
    assert [told["param"] for told in second["adjustments"]] == ["upscaler_2"]
    hires = client.post("txt2img", json={**SMALL, "enable_hr": True, "hr_scale": 2, "hr_upscaler": name})
    assert hires.status_code == 200
    (told,) = json.loads(hires.json()["info"])["adjustments"]
    assert (told["param"], told["asked"], told["used"]) == ("hr_upscaler", name, "Lanczos")


def test_the_menus_that_aiya_looks_for_are_in_the_pages_config(client: httpx.Client) -> None:
    """As AIYA's settings read them: by `props.elem_id`, after `/login` was tried."""
    root = str(client.base_url).removesuffix("/sdapi/v1/").removesuffix("/sdapi/v1")
    components = httpx.get(f"{root}/config").json()["components"]
    menus = {part["props"]["elem_id"]: part["props"]["choices"] for part in components}
    assert menus["txt2img_hr_upscaler"] == [*LATENT_UPSCALERS, "None", "Lanczos", "Nearest"]
    assert menus["setting_sd_lora"][0] == "None"
    for name in menus["txt2img_hr_upscaler"]:
        body = {**SMALL, "enable_hr": True, "hr_scale": 2, "hr_upscaler": name}
        assert client.post("txt2img", json=body).status_code == 200
    assert httpx.get(f"{root}/config/x").status_code == 404


def test_an_unknown_upscaler_is_a1111s_own_error(client: httpx.Client) -> None:
    response = client.post("extra-single-image", json={"image": INIT, "upscaler_1": "4x-UltraSharp"})
    assert response.status_code == 500
    assert response.json()["error"] == "AssertionError"
    assert response.json()["detail"] == "could not find upscaler named 4x-UltraSharp"


@pytest.mark.parametrize(
    "fields",
    [
        {"image": ""},
        {"image": "x"},
        {"resize_mode": 2},
        {"upscaling_resize": 0},
        {"upscaling_resize": 1000, "upscaler_1": "Lanczos"},
        {"upscaling_resize": "nan"},
        {"upscaling_resize_w": 0},
        {"upscaling_resize_w": 10**9, "resize_mode": 1, "upscaler_1": "Nearest"},
        {"codeformer_visibility": 1.1},
        {"extras_upscaler_2_visibility": -1},
    ],
    ids=str,
)
def test_extras_out_of_range_are_refused(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = client.post("extra-single-image", json={"image": INIT, **fields})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][0] == "body"


# ---- png-info --------------------------------------------------------------------------------------


def test_png_info_reads_an_image_of_this_gateway(client: httpx.Client) -> None:
    drawn = client.post("txt2img", json={**SMALL, "prompt": "猫", "seed": 42}).json()
    found = client.post("png-info", json={"image": drawn["images"][0]}).json()
    assert found["info"] == json.loads(drawn["info"])["infotexts"][0]
    assert set(found["items"]) == {"mflux-gateway"}
    assert found["parameters"]["Prompt"] == "猫"
    assert found["parameters"]["Seed"] == "42"


@pytest.mark.parametrize("body", [{}, {"image": ""}, {"image": "x"}, {"image": "http://127.0.0.1/a.png"}, []])
def test_png_info_without_an_image_is_refused(client: httpx.Client, body: Any) -> None:
    assert client.post("png-info", json=body).status_code == 422
