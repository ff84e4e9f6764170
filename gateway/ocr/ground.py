"""Background for an image with transparency, so that its text can be read. Knows Pillow; runs in the child."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE, BLACK, GREY = 255, 0, 128
CLEAR = 32
"""Alpha below which a pixel is background."""
SEEN = 48
"""Difference in grey levels from the background that makes text readable."""


def on_ground(image: Image) -> Image:
    """An RGBA image as RGB, on white; on black or grey if more of the drawn pixels differ clearly from that.

    Only drawn pixels next to the background count: white letters on a drawn dark plate are readable on white as well.
    """
    from PIL import Image

    levels = _at_the_edge(image)
    total = sum(levels)

    def hidden(ground: int) -> int:
        return sum(number for level, number in enumerate(levels) if abs(level - ground) < SEEN)

    ground = WHITE
    if hidden(WHITE) > 0.1 * total:
        ground = min((WHITE, BLACK, GREY), key=hidden)
    return Image.alpha_composite(Image.new("RGBA", image.size, (ground,) * 3 + (255,)), image).convert("RGB")


def _at_the_edge(image: Image) -> list[int]:
    """How many drawn pixels next to the background have each of 256 grey levels."""
    from PIL import ImageChops, ImageFilter

    alpha = image.getchannel("A")
    opaque = alpha.point([0 if value < CLEAR else 255 for value in range(256)])
    # as far as an opaque core is behind an anti-aliased edge
    beside = ImageChops.subtract(opaque, opaque.filter(ImageFilter.MinFilter(5)))
    beside = ImageChops.darker(beside, alpha.point([255 if value >= 128 else 0 for value in range(256)]))
    return image.convert("RGB").convert("L").histogram(beside)
