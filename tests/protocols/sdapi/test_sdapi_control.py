"""Pictures that follow the outlines or depths of another, asked for by /api/v1 and by A1111's ControlNet unit."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from adapters.sdapi.control import model_for, unit_of
from gateway.errors import InvalidRequest
from tests.support.engine import SPECS
from tests.support.live import Live, live
from tests.support.native import ended, put_weights

CANNY, DEPTH = "flux1-schnell-controlnet-canny-4-bit", "flux1-depth-dev"
SMALL = {"prompt": "a house", "width": 96, "height": 64, "steps": 1, "seed": 1}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With FLUX.1 schnell and its ControlNet, and Depth; dev's ControlNet lacks dev."""
    folder = tmp_path_factory.mktemp("control")
    for part in ("FLUX.1-schnell/transformer", "FLUX.1-Depth-dev/transformer", "FLUX.1-dev-Controlnet-Canny"):
        put_weights(folder / "models" / part)
    config = {"models": {"cache_dir": str(folder / "models")}, "engine": {"memory_gb": 500}}
    with live(folder, config=config) as gateway:
        yield gateway


def drawing(size: tuple[int, int] = (96, 64)) -> str:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill="black")
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def drawn(gateway: Live, **said: Any) -> bytes:
    """The pixels that /api/v1 answers."""
    submitted = httpx.post(f"{gateway.url}/api/v1/generate", json={**SMALL, **said}, timeout=30)
    assert submitted.status_code == 200, submitted.text
    with httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=30) as client:
        done = ended(client, submitted.json()["job_id"])
    assert done["status"] == "completed", done
    return pixels(done["result"]["images"][0])


def pixels(text: str) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return image.tobytes()


def unit(gateway: Live, route: str = "txt2img", checkpoint: str = "flux1-schnell-4-bit", **said: Any) -> httpx.Response:
    fields = {name: said.pop(name) for name in ("init_images",) if name in said}
    scripts = {"ControlNet": {"args": [{"input_image": drawing(), "module": "canny", **said}]}}
    body = {**SMALL, "model": checkpoint, "alwayson_scripts": scripts, **fields}
    return httpx.post(f"{gateway.url}/sdapi/v1/{route}", json=body, timeout=60)


def adjusted_params(response: httpx.Response) -> set[str]:
    assert response.status_code == 200, response.text
    return {item["param"] for item in json.loads(response.json()["info"])["adjustments"]}


# ---- /api/v1 -------------------------------------------------------------------------------------


def test_controlnet_follows_outlines_edges_and_depths(gateway: Live) -> None:
    def canny(**said: Any) -> bytes:
        return drawn(gateway, model=CANNY, control={"type": "canny", "image": drawing(), **said})

    found, given, weak = canny(), canny(edges=True), canny(strength=0.2)
    deep = drawn(gateway, model=DEPTH, control={"type": "depth", "image": drawing()})
    assert len({found, given, weak}) == 3
    assert deep == given, "the fake engine looks at the map only"
    assert canny() == found


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"model": CANNY}, "control"),
        ({"model": CANNY, "control": {"type": "depth", "image": drawing()}}, "control"),
        ({"model": CANNY, "control": {"type": "canny", "image": drawing(), "strength": 3}}, "control"),
        ({"model": CANNY, "control": {"type": "canny", "image": "nothing"}}, "control"),
        ({"model": "flux2-tiny", "control": {"type": "canny", "image": drawing()}}, "control"),
    ],
)
def test_a_control_image_that_cannot_be_followed_is_refused_by_name(
    gateway: Live, said: dict[str, Any], param: str
) -> None:
    response = httpx.post(f"{gateway.url}/api/v1/generate", json={**SMALL, **said}, timeout=30)
    assert (response.status_code, response.json()["details"]["param"]) == (400, param)


# ---- /sdapi --------------------------------------------------------------------------------------


def test_a_controlnet_unit_draws_with_the_controlnet_of_the_checkpoint_at_its_bits(gateway: Live) -> None:
    response = unit(gateway)
    assert adjusted_params(response) == set()
    assert pixels(response.json()["images"][0]) == drawn(
        gateway, model=CANNY, control={"type": "canny", "image": drawing()}
    )
    assert json.loads(response.json()["info"])["sd_model_name"] == CANNY


def test_a_controlnet_unit_may_name_its_model_and_be_disabled(gateway: Live) -> None:
    named = unit(gateway, checkpoint="flux2-tiny", model=f"{CANNY} [0123abcd]")
    assert adjusted_params(named) == {"ControlNet.model"}
    assert json.loads(named.json()["info"])["sd_model_name"] == CANNY
    off = unit(gateway, enabled=False)
    assert json.loads(off.json()["info"])["sd_model_name"] == "flux1-schnell-4-bit"


def test_a_controlnet_unit_without_image_uses_the_init_image(gateway: Live) -> None:
    response = unit(gateway, "img2img", input_image=None, init_images=[drawing((48, 32))])
    assert adjusted_params(response) == {"init_images"}


def test_ignored_fields_of_a_controlnet_unit_give_adjustments(gateway: Live) -> None:
    masks = dict.fromkeys(("mask", "mask_image", "effective_region_mask"), drawing())
    response = unit(gateway, guidance_end=0.5, control_mode=1, threshold_a=30, threshold_b=60, resize_mode=0, **masks)
    left_out = ("guidance", "control_mode", "threshold_a", "threshold_b", "mask")
    assert adjusted_params(response) == {f"ControlNet.{name}" for name in left_out}
    assert adjusted_params(unit(gateway, guidance=0.5, guidance_start=0.5)) == {"ControlNet.guidance"}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("flux1-schnell-4-bit", {"module": "depth_midas"}),
        ("flux1-schnell-4-bit", {"input_image": None}),
        ("flux1-schnell-4-bit", {"input_image": 5}),
        ("flux1-schnell-4-bit", {"weight": 9}),
        ("flux1-schnell-4-bit", {"weight": "heavy"}),
        ("flux1-schnell-4-bit", {"resize_mode": 7}),
        (DEPTH, {"module": "canny"}),
        ("flux2-tiny", {}),
    ],
)
def test_a_controlnet_unit_that_would_change_the_image_is_refused(
    gateway: Live, model: str, said: dict[str, Any]
) -> None:
    response = unit(gateway, checkpoint=model, **said)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "alwayson_scripts"]


def test_the_controlnet_lists_name_the_models_on_disk(gateway: Live) -> None:
    def get(path: str) -> Any:
        return httpx.get(f"{gateway.url}{path}").json()

    listed = get("/controlnet/model_list")["model_list"]
    assert {CANNY, DEPTH} <= set(listed)
    assert "flux1-dev-controlnet-canny" not in listed
    modules = get("/controlnet/module_list")
    assert modules["module_list"] == list(modules["module_detail"]) == ["none", "canny"]
    types = get("/controlnet/control_types")["control_types"]
    assert set(types["All"]["model_list"]) == {"None", *listed}
    first = "flux1-schnell-controlnet-canny"
    assert (types["Canny"]["default_option"], types["Canny"]["default_model"]) == ("canny", first)
    assert types["Depth"]["module_list"] == ["none"]
    assert DEPTH in types["Depth"]["model_list"]
    assert get("/controlnet/settings") == {"control_net_unit_count": 1}
    assert get("/controlnet/version") == {"version": 2}


def test_a_controlnet_unit_is_read_in_every_shape_that_clients_send() -> None:
    assert unit_of({}) is None
    assert unit_of({"controlnet": {"args": []}}) is None
    assert unit_of({"ControlNet": {"args": [False, {"enabled": "false"}]}}) is None
    found = unit_of(
        {"ControlNet": {"args": [{"image": {"image": "x", "mask": "y"}, "resize_mode": 1, "weight": "0.5"}]}}
    )
    assert found is not None
    assert (found.resize_mode, found.weight) == ("1", 0.5)
    for scripts in ({"ControlNet": []}, {"ControlNet": {"args": {}}}, {"ControlNet": {"args": [{}, {}]}}):
        with pytest.raises(InvalidRequest):
            unit_of(scripts)


def test_the_controlnet_model_has_the_checkpoints_weights_and_bits() -> None:
    rows = tuple(SPECS.values())

    def found(checkpoint: str, named: str | None = None, kind: Any = None) -> str | None:
        row = model_for(rows, SPECS[checkpoint], None if named is None else SPECS[named], kind)
        return None if row is None else row.name

    assert found("flux1-dev-8-bit") == "flux1-dev-controlnet-canny-8-bit"
    assert found("z-image-turbo", kind="canny") == "z-image-turbo-controlnet-canny"
    assert found("z-image-turbo-4-bit", "z-image-turbo-controlnet-depth") == "z-image-turbo-controlnet-depth-4-bit"
    assert found("flux1-depth-dev") == "flux1-depth-dev"
    assert found("krea-2-4-bit") == "krea-2-controlnet-depth-4-bit"
    assert found("krea-2", kind="canny") is None
    assert found("qwen-image-2.1-turbo", kind="depth") == "qwen-image-2.1-turbo-controlnet-depth"
    assert found("flux2-klein-4b") is None
    assert found("flux2-klein-4b", "flux1-depth-dev") == "flux1-depth-dev"
    assert found("flux1-dev", "qwen-image") is None
