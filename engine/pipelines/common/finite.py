"""Checks for NaN and infinity in an image's last latents and in its pixels, before these become bytes.

Each check is one reduction over the numbers of one image; its time cannot be measured beside a step's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import mlx.core as mx
from mflux.utils.image_util import ImageUtil
from PIL.Image import Image

from engine.pipelines.common.patching import patched

Where = Literal["latents", "pixels"]
MODULES: dict[Where, str] = {"latents": "Unet", "pixels": "VAE"}
"""A1111's name of the part of a model that produced them."""


class NotFinite(Exception):
    """An image's latents or pixels hold NaN or infinity."""

    def __init__(self, where: Where) -> None:
        self.where: Where = where
        super().__init__(where)


def check_finite(array: mx.array, where: Where) -> None:
    """Raises: NotFinite."""
    if not mx.all(mx.isfinite(array)).item():
        raise NotFinite(where)


def to_image(decoded: mx.array) -> Image:
    """Image from a decoder's pixels, -1 to 1. Raises: NotFinite."""
    check_finite(decoded, "pixels")
    return cast(Image, ImageUtil.to_pil(decoded))


@contextmanager
def check_pixels() -> Iterator[None]:
    """During the context every image that mflux itself makes from pixels is checked. Raises: NotFinite."""
    denormalize = ImageUtil._denormalize

    def checked(images: mx.array) -> mx.array:
        check_finite(images, "pixels")
        found: mx.array = denormalize(images)
        return found

    with patched(ImageUtil, "_denormalize", staticmethod(checked)):
        yield


def nan_message(where: Where, causes: list[str]) -> str:
    """Error message for the client. Source: A1111's NansException; clients look for its first words."""
    cause = f"{' or '.join(causes)} may be the cause" if causes else "the model's weights may be damaged"
    return f"A tensor with all NaNs was produced in {MODULES[where]}: the picture's {where} are not finite; {cause}."
