"""/sdapi/v1, masks: which part is drawn, what it begins from, and where it is laid."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from adapters.sdapi.masks import Box, MaskUse, grow, mask_of, prepare, smear
from tests.support.sdapi import SMALL, fixtures, opened
from tests.support.sdapi import a_mask as mask_png

gateway, client = fixtures()

HARD = MaskUse(blur=(0, 0), content=1)


def a_mask(size: tuple[int, int], box: Box) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def a_picture(size: tuple[int, int] = (128, 64)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


def test_white_and_opaque_parts_of_a_mask_are_repainted() -> None:
    assert mask_of(Image.new("RGB", (4, 4), "white")).getextrema() == (255, 255)
    clear = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    clear.putpixel((1, 1), (0, 0, 0, 200))
    clear.putpixel((2, 2), (0, 0, 0, 100))
    assert mask_of(clear).getbbox() == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("box", "padding", "size", "part"),
    [
        ((40, 20, 60, 40), 0, (64, 64), (40, 20, 60, 40)),
        ((40, 20, 60, 40), 4, (64, 64), (36, 16, 64, 44)),
        ((40, 20, 60, 30), 0, (64, 64), (40, 15, 60, 35)),
        ((0, 0, 10, 20), 0, (64, 64), (0, 0, 20, 20)),
        ((100, 0, 128, 64), 0, (64, 32), (0, 0, 128, 64)),
        ((0, 0, 128, 64), 10**9, (64, 64), (0, 0, 128, 64)),
    ],
)
def test_the_masked_part_gets_the_proportions_of_the_result_within_the_image(
    box: Box, padding: int, size: tuple[int, int], part: Box
) -> None:
    assert grow(box, padding, size, (128, 64)) == part


def test_only_the_masked_part_is_drawn_and_pasted_back() -> None:
    found = prepare(a_picture(), a_mask((128, 64), (40, 20, 60, 40)), HARD, (64, 64))
    assert found is not None
    assert found.box == (40, 20, 60, 40)
    assert found.init.size == found.mask.size == (64, 64)
    assert found.whole.size == found.overlay.size == (128, 64)
    assert found.mask.getextrema() == (255, 255)
    back = found.whole.copy()
    back.paste(found.init.resize((20, 20), Image.Resampling.LANCZOS), (40, 20))
    assert max(high for _, high in ImageChops.difference(back, found.whole).getextrema()) <= 8


def test_a_masked_part_at_the_edge_of_the_image_is_pasted_at_its_place() -> None:
    picture = a_picture((64, 64))
    found = prepare(picture, a_mask((64, 64), (0, 0, 64, 64)), HARD, (128, 64))
    assert found is not None
    assert found.box == (-32, 0, 96, 64)
    back = Image.new("RGB", (64, 64))
    back.paste(found.init.resize((128, 64)), (-32, 0))
    assert ImageChops.difference(back, picture).getbbox() is None
    assert found.mask.getbbox() == (32, 0, 96, 64)


def test_the_whole_image_is_resized_with_its_mask_and_the_blur_is_limited() -> None:
    use = replace(HARD, only_masked=False, blur=(2, 2))
    found = prepare(a_picture(), a_mask((128, 64), (40, 20, 60, 40)), use, (128, 64))
    assert found is not None
    assert found.box == (0, 0, 128, 64)
    assert found.overlay.getpixel((50, 30)) == 255
    left, top, right, bottom = found.overlay.getbbox() or (0, 0, 0, 0)
    assert 30 <= left < 40 < 60 < right <= 70
    assert 10 <= top < 20 < 40 < bottom <= 50


def test_a_blank_mask_has_no_part_and_an_inverted_one_is_the_whole_image() -> None:
    blank = Image.new("L", (128, 64))
    assert prepare(a_picture(), blank, HARD, (64, 64)) is None
    everything = prepare(a_picture(), blank, replace(HARD, invert=True), (128, 64))
    assert everything is not None
    assert everything.box == (0, 0, 128, 64)


def test_a_mask_of_another_size_is_stretched_to_the_image() -> None:
    found = prepare(a_picture(), a_mask((64, 32), (20, 10, 30, 20)), HARD, (64, 64))
    assert found is not None
    assert found.overlay.size == (128, 64)


def test_the_masked_part_is_filled_with_colours_from_around_it() -> None:
    picture = Image.new("RGB", (64, 64), "red")
    picture.paste((0, 0, 255), (24, 24, 40, 40))
    filled = smear(picture, a_mask((64, 64), (24, 24, 40, 40)))
    assert filled.getpixel((2, 2)) == (255, 0, 0)
    red, green, blue = filled.split()
    assert red.crop((24, 24, 40, 40)).getextrema()[0] > 200
    assert max(green.getextrema()[1], blue.getextrema()[1]) < 40
    assert smear(picture, Image.new("L", (64, 64), 255)).size == (64, 64)


# ---- masks that are asked back ---------------------------------------------------------------------


def drawn(client: httpx.Client, **options: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    """Two masked pictures of 96x64, masked at (40, 20, 60, 40) without blur."""
    picture, mask = (base64.b64encode(mask_png((96, 64), box)).decode() for box in ((0, 0, 30, 30), (40, 20, 60, 40)))
    body = {**SMALL, "init_images": [picture], "mask": mask, "mask_blur": 0, "batch_size": 2}
    response = client.post("img2img", json={**body, "override_settings": options})
    assert response.status_code == 200, response.text
    answer = response.json()
    return [opened(base64.b64decode(image)) for image in answer["images"]], json.loads(answer["info"])


def test_return_mask_adds_masks_behind_each_image(client: httpx.Client) -> None:
    images, notes = drawn(client, return_mask=True, return_mask_composite=True)
    assert [image.mode for image in images] == ["RGB", "RGB", "RGBA"] * 2
    assert {image.size for image in images} == {(96, 64)}
    assert len(notes["infotexts"]) == len(notes["all_seeds"]) == 2
    assert not [item for item in notes["adjustments"] if item["param"].startswith("override_settings")]
    first, mask, cut_out = images[:3]
    assert mask.getbbox() == cut_out.getchannel("A").getbbox() == (40, 20, 60, 40)
    assert cut_out.convert("RGB").crop((40, 20, 60, 40)).tobytes() == first.crop((40, 20, 60, 40)).tobytes()
    assert "parameters" in first.info
    assert "parameters" not in mask.info


def test_returned_masks_have_the_requested_format(client: httpx.Client) -> None:
    images, _ = drawn(client, return_mask_composite=True, samples_format="jpg")
    assert [image.format for image in images] == ["JPEG"] * 4
    assert len(drawn(client)[0]) == 2
    assert client.post("options", json={"return_mask": True}).json() is None
    assert len(drawn(client)[0]) == 4
    assert client.get("options").json()["return_mask"] is True
    client.post("options", json={"return_mask": False})
