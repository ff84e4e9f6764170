"""What the pictures of a request become: masks of both meanings, sizes, and which picture serves for what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from adapters.shared.body import validated
from adapters.v1.input_images import (
    check_references,
    crop_to,
    default_size,
    edit_adjustments,
    mask_of,
    prepare,
    size_of,
    uses_of,
)
from adapters.v1.payload import IMAGE_ROLES, InputImage, Payload, flatten
from adapters.v1.request_schemas import Edit, Inpainting, InputImageBody, Variation
from engine.catalog import CATALOG
from gateway.errors import InvalidRequest
from gateway.images.codec import opened
from gateway.images.codec import to_png as png
from gateway.images.decoder import CheckedImage
from gateway.jobs.resolve import Limits

SPECS = {spec.name: spec for spec in CATALOG}
TINY, KLEIN = SPECS["flux2-tiny"].model_copy(update={"max_references": 0}), SPECS["flux2-klein-4b"]
LIMITS = Limits()
APPLE = {"prompt": "an apple"}


def picture(size: tuple[int, int] = (96, 64), colour: Any = "red", mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def hole(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Opaque black, its left half transparent."""
    image = picture(size, (0, 0, 0, 255), "RGBA")
    image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image


def white_left(size: tuple[int, int] = (96, 64)) -> Image.Image:
    image = picture(size, "black")
    image.paste("white", (0, 0, size[0] // 2, size[1]))
    return image


def asked(route: type[InputImageBody] = Edit, **body: Any) -> InputImageBody:
    return validated(route, flatten({**APPLE, **body}))


def sent(**counts: int) -> Payload:
    found = Payload({})
    for name, count in counts.items():
        found.images.setdefault(IMAGE_ROLES[name], []).extend(InputImage(b"", name) for _ in range(count))
    return found


# ---- masks -----------------------------------------------------------------------------------------


def test_mask_of_either_meaning_is_converted_to_the_same_form() -> None:
    transparent = mask_of(hole(), by_alpha=True)
    white = mask_of(white_left(), by_alpha=True)
    assert transparent.mode == white.mode == "L"
    assert transparent.tobytes() == white.tobytes()
    assert [white.getpixel(at) for at in ((0, 0), (95, 63))] == [255, 0]


def test_mask_transparency_is_ignored_where_only_white_counts() -> None:
    both = white_left().convert("RGBA")
    both.putalpha(hole().getchannel("A"))
    assert mask_of(both, by_alpha=False).tobytes() == mask_of(white_left(), by_alpha=False).tobytes()


@pytest.mark.parametrize("mask", [picture(colour="black"), picture(colour=(255, 255, 255, 255), mode="RGB")])
def test_mask_without_transparency_repaints_where_it_is_white(mask: Image.Image) -> None:
    if mask.getpixel((0, 0)) == (255, 255, 255):
        assert mask_of(mask, by_alpha=True).getextrema() == (255, 255)
        return
    with pytest.raises(InvalidRequest, match="nothing to change"):
        mask_of(mask, by_alpha=True)


def test_a_mask_of_another_size_is_stretched_to_its_picture() -> None:
    ready = prepare(asked(), [png(picture((192, 128)))], [png(hole((48, 32)))], [], LIMITS)
    mask = opened(ready.mask or b"")
    assert (mask.size, mask.mode) == ((192, 128), "L")
    assert mask.getpixel((10, 10)) == 255
    assert mask.getpixel((180, 100)) == 0


def test_mask_edge_is_blurred_on_request() -> None:
    hard = prepare(asked(Inpainting), [png(picture())], [png(white_left())], [], LIMITS)
    soft = prepare(
        asked(Inpainting, kwargs=json.dumps({"mask_blur": 4})), [png(picture())], [png(white_left())], [], LIMITS
    )
    assert len(opened(hard.mask or b"").getcolors() or []) == 2
    assert len(opened(soft.mask or b"").getcolors() or []) > 4


def test_dall_e_2_edit_repaints_the_transparent_parts_of_the_picture() -> None:
    assert prepare(asked(model="dall-e-2"), [png(hole())], [], [], LIMITS).mask is not None
    assert prepare(asked(model="gpt-image-1"), [png(hole())], [], [], LIMITS).mask is None
    assert prepare(asked(Variation, model="dall-e-2"), [png(hole())], [], [], LIMITS).mask is None


# ---- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "used"),
    [
        ((512, 256), (512, 256)),
        ((1000, 700), (992, 688)),
        ((4000, 3000), (2048, 1536)),
        ((8000, 100), (2048, 64)),
        ((32, 32), (64, 64)),
        ((16, 40), (64, 160)),
        ((1, 8192), (64, 2048)),
        ((2048, 2048), (2048, 2048)),
    ],
)
def test_picture_size_becomes_a_size_that_the_model_can_draw(size: tuple[int, int], used: tuple[int, int]) -> None:
    assert default_size(size, LIMITS) == used
    found, told = size_of(asked(), size, LIMITS)
    assert found == used
    assert [adjustment.param for adjustment in told] == ([] if size == used else ["size"])


def test_size_in_the_request_overrides_the_size_of_the_input_pictures() -> None:
    assert size_of(asked(size="128x64"), (512, 512), LIMITS) == ((128, 64), ())
    assert size_of(asked(size="original"), (512, 512), LIMITS) == ((512, 512), ())
    assert size_of(asked(width=128), (512, 256), LIMITS) == ((128, 256), ())


@pytest.mark.parametrize("body", [{"size": "9999x64"}, {"width": 99999}, {"size": "64x1"}])
def test_a_size_out_of_bounds_is_refused_before_a_picture_is_scaled_to_it(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        size_of(asked(**body), (64, 64), LIMITS)


def test_picture_of_other_proportions_is_cropped_and_not_distorted() -> None:
    circle = picture((200, 100), "blue")
    circle.paste("red", (75, 25, 125, 75))
    cut = crop_to(circle, (64, 64))
    red = [(x, y) for x in range(64) for y in range(64) if cut.getpixel((x, y)) == (255, 0, 0)]
    assert (
        abs((max(x for x, _ in red) - min(x for x, _ in red)) - (max(y for _, y in red) - min(y for _, y in red))) <= 1
    )


# ---- which picture serves for what -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "body", "pictures", "starts", "follows"),
    [
        (Edit, {}, {"image": 1}, False, True),
        (Edit, {}, {"images": 4}, False, True),
        (Edit, {"strength": 0.5}, {"image": 1}, True, True),
        (Edit, {}, {"image": 1, "mask": 1}, True, True),
        (Variation, {}, {"image": 1}, True, False),
        (Variation, {}, {"image": 2}, False, True),
        (Variation, {"strength": 0.5}, {"image": 2}, True, True),
        (Inpainting, {}, {"image": 1, "mask_image": 1}, True, False),
        (Inpainting, {}, {"image": 1, "mask": 1}, True, False),
    ],
)
def test_edit_model_uses_the_input_pictures_as_references(
    route: type[InputImageBody], body: dict[str, Any], pictures: dict[str, int], starts: bool, follows: bool
) -> None:
    found = uses_of(asked(route, **body), sent(**pictures), KLEIN)
    assert (found.starts, found.follows) == (starts, follows)


@pytest.mark.parametrize("route", [Edit, Variation])
def test_model_without_edit_uses_image_to_image_and_reports_it(route: type[InputImageBody]) -> None:
    found = uses_of(asked(route), sent(image=1), TINY)
    assert (found.starts, found.follows) == (True, False)
    told = edit_adjustments(asked(route), TINY, sent(image=1), repaints=False)
    assert [(a.param, a.used) for a in told] == ([("image", "image-to-image")] if route is Edit else [])
    assert edit_adjustments(asked(route), TINY, sent(image=1, mask=1), repaints=True) == ()
    assert edit_adjustments(asked(route), KLEIN, sent(image=1), repaints=False) == ()


def test_input_fidelity_is_reported_as_having_no_effect() -> None:
    assert (
        edit_adjustments(asked(input_fidelity="high"), KLEIN, sent(image=1), repaints=False)[0].param
        == "input_fidelity"
    )
    assert edit_adjustments(asked(input_fidelity="low"), KLEIN, sent(image=1), repaints=False) == ()


@pytest.mark.parametrize(
    ("route", "pictures", "model", "param"),
    [
        (Edit, {}, KLEIN, "image"),
        (Edit, {"mask": 1}, KLEIN, "image"),
        (Variation, {}, KLEIN, "image"),
        (Inpainting, {"image": 1}, KLEIN, "mask_image"),
        (Edit, {"image": 2}, TINY, "image"),
        (Edit, {"images": 5}, KLEIN, "images"),
        (Edit, {"image": 4, "reference_image": 1}, KLEIN, "reference_image"),
        (Edit, {"image": 1, "mask": 2}, KLEIN, "mask"),
        (Edit, {"image": 1, "mask": 1, "markup": 1}, KLEIN, "markup"),
        (Inpainting, {"image": 1, "mask": 1, "markup": 1}, KLEIN, "markup"),
        (Variation, {"image": 1, "markup": 1}, KLEIN, "markup"),
        (Variation, {"image": 1, "mask": 1}, KLEIN, "mask"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused_with_their_parameter_name(
    route: type[InputImageBody], pictures: dict[str, int], model: Any, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        uses_of(asked(route), sent(**pictures), model)
    assert caught.value.param == param


def test_reference_picture_that_is_too_small_is_refused() -> None:
    check_references([CheckedImage(png(picture((16, 4000))))], "image")
    with pytest.raises(InvalidRequest, match="at least 16 pixels"):
        check_references([CheckedImage(png(picture())), CheckedImage(png(picture((15, 64))))], "image")


def test_markup_picture_is_laid_over_the_reference_picture() -> None:
    markup = picture((48, 32), (0, 0, 0, 0), "RGBA")
    markup.paste((0, 255, 0, 255), (0, 0, 24, 32))
    ready = prepare(asked(), [png(picture())], [], [png(markup)], LIMITS)
    for image in (opened(ready.first), opened(ready.start())):
        assert image.getpixel((5, 30)) == (0, 255, 0)
        assert image.getpixel((90, 30)) == (255, 0, 0)
    with pytest.raises(InvalidRequest, match="transparent PNG"):
        prepare(asked(), [png(picture())], [], [png(picture())], LIMITS)


def test_transparent_parts_of_an_input_picture_become_white() -> None:
    start = opened(prepare(asked(), [png(hole())], [], [], LIMITS).start())
    assert start.mode == "RGB"
    assert [start.getpixel(at) for at in ((0, 0), (95, 0))] == [(255, 255, 255), (0, 0, 0)]
