"""Enlargement of images without a model. Pure; takes checked images only, blocks as long as Pillow does."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.sdapi.lists import NO_UPSCALER, UPSCALERS
from adapters.sdapi.values import times
from gateway.errors import InvalidRequest
from gateway.images.decoder_child import MAX_EDGE_PX, MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

FILTERS = {"Lanczos": "LANCZOS", "Nearest": "NEAREST"}
"""Our upscalers that need no model, and the names of Pillow's filters."""
STEP_PX = 8
"""A1111 rounds the sides of enlarged images down to a multiple of this."""

assert {NO_UPSCALER, *FILTERS} == {row["name"] for row in UPSCALERS}


@dataclass(frozen=True, slots=True)
class Enlargement:
    """An enlargement: by a factor, or to a size in pixels, with the rest cropped where `crop` is set."""

    first: str
    second: str = NO_UPSCALER
    second_share: float = 0.0
    """The opacity of the second upscaler's image over that of the first, 0 to 1."""
    factor: float | None = None
    size_px: tuple[int, int] = (512, 512)
    crop: bool = True

    def target_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels before the crop."""
        factor = self.factor_for(width, height)
        return tuple(max(STEP_PX, times(px, factor) // STEP_PX * STEP_PX) for px in (width, height))  # type: ignore[return-value]

    def factor_for(self, width: int, height: int) -> float:
        return self.factor or max(self.size_px[0] / width, self.size_px[1] / height)


def enlarge(png: bytes, how: Enlargement, *, param: str, upscaled: bytes | None = None) -> Image.Image:
    """The enlarged image; unchanged where no upscaler is chosen. `upscaled` is the PNG of an upscaling model.

    Source: A1111 1.10.1 scripts/postprocessing_upscale.py. Raises: InvalidRequest for a result beyond the bounds.
    """
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    if how.first == NO_UPSCALER:
        return image
    width, height = how.target_of(*image.size)
    if max(width, height) > MAX_EDGE_PX or width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"The result may have at most {MAX_PIXELS} pixels, {MAX_EDGE_PX} on one side.", param=param
        )
    if upscaled is None:
        result = image.resize((width, height), Image.Resampling[FILTERS[how.first]])
    else:
        result = _upscaled(upscaled, image, (width, height))
    if how.second != NO_UPSCALER and how.second_share > 0:
        other = image.resize((width, height), Image.Resampling[FILTERS[how.second]])
        result = Image.blend(result, other, how.second_share)
    if how.factor is None and how.crop:
        left, top = (width - how.size_px[0]) // 2, (height - how.size_px[1]) // 2
        result = result.crop((left, top, left + how.size_px[0], top + how.size_px[1]))
    return result


def _upscaled(png: bytes, before: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image of an upscaling model at exactly `size`, with the transparency of the image before."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        result = opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if before.mode == "RGBA":
        result.putalpha(before.getchannel("A").resize(size, Image.Resampling.LANCZOS))
    return result


def labels_of(how: Enlargement, before: tuple[int, int]) -> dict[str, str]:
    """The infotext pairs of an enlargement, which A1111 writes into its html and its file."""
    if how.first == NO_UPSCALER:
        return {}
    pairs = {"Postprocess upscale by": f"{how.factor_for(*before):g}"}
    if how.factor is None:
        pairs = {"Postprocess upscale to": f"{how.size_px[0]}x{how.size_px[1]}"}
        if how.crop:
            pairs["Postprocess crop to"] = pairs["Postprocess upscale to"]
    pairs["Postprocess upscaler"] = how.first
    if how.second != NO_UPSCALER and how.second_share > 0:
        pairs["Postprocess upscaler 2"] = how.second
    return pairs


def as_png(image: Image.Image, texts: dict[str, str]) -> bytes:
    """The PNG of an image with these text chunks; texts beyond Latin-1 become iTXt."""
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1, pnginfo=chunks)
    return out.getvalue()
