"""Pictures of numbers that are none: found on the last latents and on the pixels, before these become bytes.

Either check is one reduction over one picture's numbers, beside which no step can be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import mlx.core as mx
from mflux.utils.image_util import ImageUtil

from engine.pipelines.common.patching import patched

Where = Literal["latents", "pixels"]
MODULES: dict[Where, str] = {"latents": "Unet", "pixels": "VAE"}
"""What A1111 calls the part of a model that made them."""


class NotFinite(Exception):
    """A picture's latents, or its pixels, hold NaN or infinity."""

    def __init__(self, where: Where) -> None:
        self.where: Where = where
        super().__init__(where)


def check_finite(array: mx.array, where: Where) -> None:
    """Raises: NotFinite."""
    if not mx.all(mx.isfinite(array)).item():
        raise NotFinite(where)


@contextmanager
def check_pixels() -> Iterator[None]:
    """Meanwhile what mflux makes a picture of is checked, previews included: what is spoilt stays so."""
    denormalize = ImageUtil._denormalize

    def checked(images: mx.array) -> mx.array:
        check_finite(images, "pixels")
        found: mx.array = denormalize(images)
        return found

    with patched(ImageUtil, "_denormalize", staticmethod(checked)):
        yield


def nan_message(where: Where, causes: list[str]) -> str:
    """A sentence for the client. Source: A1111's NansException, whose first words its clients look for."""
    cause = f"{' or '.join(causes)} may be the cause" if causes else "the model's weights may be damaged"
    return f"A tensor with all NaNs was produced in {MODULES[where]}: the picture's {where} are not finite; {cause}."
