"""What AUTOMATIC1111's own tests assert, said again: these requests, sent to this gateway, answer 200.

Source: A1111 1.10.1 test/test_txt2img.py, test_img2img.py, test_extras.py, test_utils.py.
"""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.support.sdapi import a_mask, an_image, fixtures

TXT2IMG: dict[str, Any] = {
    "batch_size": 1,
    "cfg_scale": 7,
    "denoising_strength": 0,
    "enable_hr": False,
    "eta": 0,
    "firstphase_height": 0,
    "firstphase_width": 0,
    "height": 64,
    "n_iter": 1,
    "negative_prompt": "",
    "prompt": "example prompt",
    "restore_faces": False,
    "s_churn": 0,
    "s_noise": 1,
    "s_tmax": 0,
    "s_tmin": 0,
    "sampler_index": "Euler a",
    "seed": -1,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "steps": 3,
    "styles": [],
    "subseed": -1,
    "subseed_strength": 0,
    "tiling": False,
    "width": 64,
}
INIT = base64.b64encode(an_image((64, 64), "blue")).decode()
MASK = base64.b64encode(a_mask((64, 64), (16, 16, 48, 48))).decode()
IMG2IMG: dict[str, Any] = {
    **{key: value for key, value in TXT2IMG.items() if not key.startswith(("enable_hr", "firstphase"))},
    "denoising_strength": 0.75,
    "include_init_images": False,
    "init_images": [INIT],
    "inpaint_full_res": False,
    "inpaint_full_res_padding": 0,
    "inpainting_fill": 0,
    "inpainting_mask_invert": False,
    "mask": None,
    "mask_blur": 4,
    "override_settings": {},
    "resize_mode": 0,
}
SD_UPSCALE = {"script_name": "sd upscale", "script_args": ["", 8, "Lanczos", 2]}
EXTRAS: dict[str, Any] = {
    "resize_mode": 0,
    "show_extras_results": True,
    "gfpgan_visibility": 0,
    "codeformer_visibility": 0,
    "codeformer_weight": 0,
    "upscaling_resize": 2,
    "upscaling_resize_w": 128,
    "upscaling_resize_h": 128,
    "upscaling_crop": True,
    "upscaler_1": "Lanczos",
    "upscaler_2": "None",
    "extras_upscaler_2_visibility": 0,
    "image": INIT,
}


gateway, client = fixtures()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(
            ("txt2img", {**TXT2IMG, **changes})
            for changes in (
                {},
                {"negative_prompt": "example negative prompt"},
                {"prompt": "((emphasis)), (emphasis1:1.1), [to:1], [from::2], [from:to:0.3], [alt|alt1]"},
                {"height": 128},
                {"enable_hr": True},
                {"tiling": True},
                {"restore_faces": True},
                {"sampler_index": "PLMS"},
                {"sampler_index": "DDIM"},
                {"sampler_index": "UniPC"},
                {"n_iter": 2},
                {"batch_size": 2},
            )
        ),
        *(
            ("img2img", {**IMG2IMG, **changes})
            for changes in ({}, {"mask": MASK}, {"mask": MASK, "inpainting_mask_invert": True}, SD_UPSCALE)
        ),
        ("extra-single-image", EXTRAS),
        ("extra-single-image", {"image": INIT}),
        ("extra-single-image", {"image": INIT, "model": "clip"}),
    ],
)
def test_a_request_of_a1111s_tests_is_answered(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, json=body).status_code == 200


def test_an_unknown_script_is_a_422_as_in_a1111(client: httpx.Client) -> None:
    response = client.post(
        "img2img", json={**IMG2IMG, "script_name": "outpainting mk2", "script_args": ["", 8, "Lanczos", 2]}
    )
    assert response.status_code == 422
    assert response.json()["detail"][0]["msg"] == "Script 'outpainting mk2' not found"


def test_an_option_that_is_written_is_read_back(client: httpx.Client) -> None:
    before = client.get("options").json()["send_seed"]
    assert client.post("options", json={"send_seed": not before}).status_code == 200
    assert client.get("options").json()["send_seed"] is not before
    client.post("options", json={"send_seed": before})


@pytest.mark.parametrize(
    "path",
    [
        "cmd-flags",
        "samplers",
        "upscalers",
        "sd-models",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
        "embeddings",
    ],
)
def test_a_list_of_a1111s_tests_exists(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
