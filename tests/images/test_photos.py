"""Pictures as phones and scanners make them: large, wide, of formats that browsers do not write."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import pillow_heif
import pytest
from PIL import Image

from gateway.errors import InvalidRequest
from gateway.http.text_bounds import check_texts
from gateway.images.codec import MAX_IMAGE_BYTES, base64_image
from gateway.images.decoder_child import MAX_EDGE_PX, MAX_PIXELS, Refused, checked, normalised
from tests.support.v1 import assert_openai_error, opened

pillow_heif.register_heif_opener()

SMALL: dict[str, Any] = {"prompt": "x", "width": 64, "height": 64, "steps": 1, "denoising_strength": 0.5}
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
LARGE = {
    "12 MP JPEG": ("JPEG", (4032, 3024)),
    "24 MP JPEG": ("JPEG", (5712, 4284)),
    "48 MP JPEG": ("JPEG", (8064, 6048)),
    "108 MP JPEG": ("JPEG", (12000, 9000)),
    "24 MP PNG": ("PNG", (5712, 4284)),
    "48 MP PNG": ("PNG", (8064, 6048)),
    "24 MP HEIC": ("HEIF", (5712, 4284)),
    "panorama, JPEG": ("JPEG", (9000, 600)),
    "panorama, PNG": ("PNG", (9000, 600)),
    "long screenshot": ("PNG", (600, 20_000)),
}


QUICKLY: dict[str, dict[str, Any]] = {"HEIF": {"enc_params": {"preset": "ultrafast"}}, "PNG": {"compress_level": 1}}
"""How a format is written in a fifth of the time."""


def halves(size: tuple[int, int], format: str = "PNG", **options: Any) -> bytes:
    """Red on the left and blue on the right."""
    picture, out = Image.new("RGB", size, "red"), io.BytesIO()
    picture.paste("blue", (size[0] // 2, 0, *size))
    picture.save(out, format, **QUICKLY.get(format, {}), **options)
    return out.getvalue()


def is_halves(picture: Image.Image) -> bool:
    left, right = (picture.getpixel((picture.width * x // 4, picture.height // 2)) for x in (1, 3))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    return left[0] > 200 > 60 > left[2] and right[2] > 200 > 60 > right[0]


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_drawn_upon_in_each_protocol_whatever_its_label_says(plain: httpx.Client, format: str) -> None:
    data = halves((96, 64), format)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert is_halves(
        opened(
            plain.post("/v1/images/edits", data={"prompt": "x", "strength": "0"}, files={"image": data}).json()["data"][
                0
            ]["b64_json"]
        )
    )
    assert plain.post("/sdapi/v1/img2img", json={**SMALL, "init_images": [url]}).status_code == 200
    assert plain.post("/sdapi/v1/png-info", json={"image": url}).status_code == 200
    upload = plain.post("/api/v1/uploads", files={"image": ("x.jpg", data)}).json()
    assert (upload["width"], upload["height"]) == (96, 64)


@pytest.mark.parametrize(("format", "size"), LARGE.values(), ids=LARGE)
def test_large_pictures_are_made_smaller_as_they_are_decoded(format: str, size: tuple[int, int]) -> None:
    png, kept = checked(halves(size, format))
    made = opened(base64.b64encode(png).decode())
    assert is_halves(made)
    assert made.width * made.height <= MAX_PIXELS
    assert max(made.size) <= MAX_EDGE_PX
    assert made.width / made.height == pytest.approx(size[0] / size[1], rel=0.01)
    fits = size[0] * size[1] <= MAX_PIXELS and max(size) <= MAX_EDGE_PX
    assert (made.size == size) is fits
    if kept:
        assert normalised(kept) == png, "the file that is kept is the same picture"


@pytest.mark.parametrize("format", ["JPEG", "HEIF", "AVIF", "WEBP", "PNG"])
def test_image_photo_is_rotated_by_exif_orientation(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = opened(base64.b64encode(normalised(halves((96, 64), format, exif=exif.tobytes()))).decode())
    assert made.size == (64, 96)
    top, bottom = made.getpixel((32, 24)), made.getpixel((32, 72))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 60 > top[2]
    assert bottom[2] > 200 > 60 > bottom[0]


@pytest.mark.parametrize("format", ["GIF", "TIFF"])
def test_image_of_several_frames_uses_first_frame(format: str) -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    frames[0].save(out, format, save_all=True, append_images=frames[1:])
    assert opened(base64.b64encode(normalised(out.getvalue())).decode()).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(12_000, 9_000), (66_000, 10)])
def test_image_refusal_names_the_limit_and_the_size(size: tuple[int, int]) -> None:
    out = io.BytesIO()
    Image.new("1", size).save(out, "PNG")
    with pytest.raises(Refused, match=f"has {size[0]} x {size[1]} pixels; at most 50000000 are taken, 65535 on one"):
        normalised(out.getvalue())


def test_metadata_texts_of_a_large_image_are_read(plain: httpx.Client) -> None:
    """An upscale of 4608 x 4608 is dropped onto png-info."""
    from PIL.PngImagePlugin import PngInfo

    text = "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 4608x4608"
    notes, out = PngInfo(), io.BytesIO()
    notes.add_text("parameters", text)
    Image.new("RGB", (4608, 4608), "red").save(out, "PNG", pnginfo=notes, compress_level=1)
    answer = plain.post("/sdapi/v1/png-info", json={"image": base64.b64encode(out.getvalue()).decode()})
    assert answer.json()["info"] == text


def test_image_request_accepts_sixteen_images_and_one_of_forty_megabytes(plain: httpx.Client) -> None:
    """OpenAI's bounds: refused by the model's own count of references only, and not for their bytes."""
    many = [("image[]", (f"{n}.png", halves((96, 64)))) for n in range(16)]
    refused = assert_openai_error(plain.post("/v1/images/edits", data={"prompt": "x"}, files=many), 400)
    assert "takes at most" in refused["message"]
    heavy = halves((64, 64), "BMP") + bytes(40 * 2**20)
    assert plain.post("/v1/images/edits", data={"prompt": "x"}, files={"image": heavy}).status_code == 200


def test_image_refusal_names_the_limit_and_the_value_found() -> None:
    text = base64.b64encode(b"\x89PNG" + bytes(MAX_IMAGE_BYTES + 6)).decode()
    found = MAX_IMAGE_BYTES + 10
    with pytest.raises(InvalidRequest, match=f"at most {MAX_IMAGE_BYTES} bytes; this one has {found}"):
        base64_image(text)
    with pytest.raises(InvalidRequest, match=r"longer than 8192 characters: it has 9000\."):
        check_texts({"sampler": "x" * 9000}, {})
    with pytest.raises(InvalidRequest, match=r"more than 2048 entries: it has 3000\."):
        check_texts({"styles": ["x"] * 3000}, {})
    out = io.BytesIO()
    Image.new("L", (16320, 12240)).save(out, "PNG")
    with pytest.raises(Refused, match="The picture has 199756800 pixels; at most 130000000 are taken"):
        normalised(out.getvalue())
