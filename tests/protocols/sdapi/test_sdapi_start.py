"""/sdapi/v1, the pictures a drawing begins from: which become starts, and which references."""

from __future__ import annotations

import base64
import hashlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.sdapi.field_names import field_of
from adapters.sdapi.init_images import InputImages, store_images
from adapters.sdapi.masks import mask_use
from adapters.sdapi.options import OutputOptions
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.shared.body import validated
from engine.catalog import CATALOG
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.images.codec import CheckedImage
from gateway.images.file_pool import FilePool
from gateway.jobs.resolve import resolve
from gateway.round_robin import Share
from gateway.settings import Settings
from tests.support import run
from tests.support.sdapi import INIT, LIMITS, TINY, an_image, opened, to_request
from tests.support.sdapi import a_mask as mask_png

EDITS = next(spec for spec in CATALOG if spec.max_references == 4)
NO_EDIT = next(spec for spec in CATALOG if spec.max_references == 0)
SMALL = {"width": 64, "height": 64}
THIN = base64.b64encode(an_image((200, 8))).decode()


class Shelf:
    """In the place of the service and of the decoder: keeps pictures, and takes them as they are."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.inputs = self

    async def keep(self, picture: CheckedImage | bytes, share: Share) -> str:
        png = picture.png if isinstance(picture, CheckedImage) else picture
        name = hashlib.sha256(png).hexdigest()
        self.kept[name] = png
        return name

    async def check(self, data: bytes, param: str, share: Share) -> CheckedImage:
        return CheckedImage(data)


def begun(body: dict[str, Any], *, model: Any = EDITS, shelf: Shelf | None = None) -> InputImages:
    shelf = shelf or Shelf()
    core = cast(Core, SimpleNamespace(service=shelf, decoder=shelf, files=FilePool(), settings=Settings()))
    kind = Img2Img if "init_images" in body else Txt2Img
    return run(store_images(core, validated(kind, {**SMALL, **body}), model, OutputOptions()))


@pytest.mark.parametrize(
    ("body", "starts", "references", "denoise"),
    [
        ({"init_images": [INIT]}, 1, 0, None),
        ({"init_images": [INIT], "denoising_strength": 0.5}, 1, 0, None),
        ({"init_images": [INIT], "image_strength": 0.5}, 1, 1, None),
        ({"init_images": [INIT], "mode": "edit"}, 0, 1, 1.0),
        ({"init_images": [INIT, INIT], "mode": "edit"}, 0, 2, 1.0),
        ({"init_images": [INIT], "mode": "edit", "extra_images": [INIT]}, 0, 2, 1.0),
        ({"init_images": [INIT], "extra_images": [INIT]}, 1, 1, None),
        ({"init_images": [INIT], "mode": "edit", "mask": INIT}, 1, 1, 1.0),
        ({"extra_images": [INIT, INIT]}, 0, 2, None),
        ({}, 0, 0, None),
    ],
)
def test_an_edit_model_uses_references(
    body: dict[str, Any], starts: int, references: int, denoise: float | None
) -> None:
    found = begun(body)
    assert (len(found.init_images), len(found.references), found.denoise) == (starts, references, denoise)
    assert found.adjustments == ()


def test_a_model_without_edits_uses_the_init_image_with_an_adjustment() -> None:
    found = begun({"init_images": [INIT], "mode": "edit", "extra_images": [INIT]}, model=NO_EDIT)
    assert (len(found.init_images), found.references, found.denoise) == (1, (), None)
    assert [item.param for item in found.adjustments] == ["extra_images", "mode"]
    assert begun({"init_images": [INIT], "image_strength": 0.5}, model=NO_EDIT).adjustments == ()


@pytest.mark.parametrize("body", [{"extra_images": [INIT] * 5}, {"extra_images": [THIN]}])
def test_too_many_references_and_too_small_ones_are_refused_by_name(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        begun(body)
    assert caught.value.param == "extra_images"


def test_an_edit_starts_from_noise_with_references_at_their_own_size() -> None:
    shelf = Shelf()
    body = {**SMALL, "init_images": [INIT], "mode": "edit", "denoising_strength": 0.3}
    asked = validated(Img2Img, body)
    request = to_request(asked, checkpoint=None, limits=LIMITS, images=begun(body, shelf=shelf)).request
    plan = resolve(request, EDITS, LIMITS, random_seed=lambda: 1).plan
    assert (plan.init_image, plan.denoise, len(plan.references)) == (None, 1.0, 1)
    assert opened(shelf.kept[plan.references[0]]).size == (96, 64)


def test_inpainting_stores_four_images_and_the_place_of_the_result() -> None:
    shelf = Shelf()
    found = begun({"init_images": [INIT], "mask": INIT, "mask_blur": 0, "inpainting_fill": 2}, shelf=shelf)
    assert found.paste is not None
    assert (found.mask is not None, found.mask_content) == (True, "noise")
    assert opened(shelf.kept[found.paste.picture]).size == (96, 64)
    assert opened(shelf.kept[found.init_images[0]]).size == (64, 64)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"mask_blur": 2000}, "mask_blur"),
        ({"inpainting_fill": 4}, "inpainting_fill"),
        ({"inpainting_fill": -1}, "inpainting_fill"),
    ],
)
def test_mask_parameters_out_of_bounds_are_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        begun({"init_images": [INIT], "mask": INIT, **body})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "blur"),
    [
        ({}, (4.0, 4.0)),
        ({"mask_blur": 2}, (2.0, 2.0)),
        ({"mask_blur_x": 1, "mask_blur_y": "3"}, (1.0, 3.0)),
        ({"mask_blur": 0, "mask_blur_x": 1}, (0.0, 0.0)),
    ],
)
def test_a_mask_is_blurred_horizontally_and_vertically(body: dict[str, Any], blur: tuple[float, float]) -> None:
    assert mask_use(validated(Img2Img, body)).blur == blur


def test_mask_round_false_gives_an_adjustment() -> None:
    body = {"init_images": [INIT], "mask": INIT, "mask_round": False}
    found = to_request(validated(Img2Img, body), checkpoint=None, limits=LIMITS, images=begun(body))
    assert [(item.param, item.used) for item in found.adjustments] == [("mask_round", "true")]


def test_init_images_with_one_mask_are_each_pasted_into_their_own() -> None:
    other = base64.b64encode(mask_png((96, 64), (0, 0, 9, 9))).decode()
    found = begun({"init_images": [INIT, other], "batch_size": 2, "mask": INIT})
    assert found.paste is not None
    assert len(set(found.init_images)) == 2
    assert len({found.paste.picture, *found.paste.further_pictures}) == 2


def test_init_images_with_one_mask_must_have_one_size() -> None:
    other = base64.b64encode(mask_png((64, 64), (0, 0, 9, 9))).decode()
    with pytest.raises(InvalidRequest) as caught:
        begun({"init_images": [INIT, other], "batch_size": 2, "mask": INIT})
    assert caught.value.param == "init_images"


def test_resize_mode_3_stretches_latents_where_the_model_can() -> None:
    shelf = Shelf()
    found = begun({"init_images": [INIT], "resize_mode": 3}, shelf=shelf)
    assert found.stretch_latents
    assert opened(shelf.kept[found.init_images[0]]).size == (96, 64)
    for body, model in (({}, TINY), ({"mask": INIT}, EDITS)):
        told = begun({"init_images": [INIT], "resize_mode": 3, **body}, model=model)
        assert not told.stretch_latents
        assert [(item.param, item.used) for item in told.adjustments if item.param == "resize_mode"] == [
            ("resize_mode", 0)
        ]


def test_parameter_names_of_the_core_become_the_clients_field_names() -> None:
    asked = validated(Txt2Img, {"enable_hr": True, "hr_resize_x": 9000, "extra_images": ["a"]})
    assert field_of(asked, "second_pass") == "hr_resize_x"
    assert field_of(asked, "references") == "extra_images"
    assert field_of(validated(Txt2Img, {"enable_hr": True}), "second_pass") == "hr_scale"
