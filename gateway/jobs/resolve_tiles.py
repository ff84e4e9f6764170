"""Tiles of a picture that is enlarged and drawn over part by part: from what was asked to a plan. Pure."""

from __future__ import annotations

from typing import Literal

from engine.catalog import ModelSpec
from engine.protocol import Frozen, Tiles
from gateway.errors import InvalidRequest, clip
from gateway.jobs.limits import Limits

MOST_TILES = 256
MOST_OVERLAP_PX = 256
"""Of A1111's slider."""


class TilesRequest(Frozen):
    """Tiles as a client asked for them; they have the size that the request names."""

    width_px: int
    height_px: int
    """Of the result."""
    overlap_px: int
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    batch: int = 1


def tiles_of(asked: TilesRequest, tile_px: tuple[int, int], limits: Limits) -> Tiles:
    """Raises: InvalidRequest for a result, an overlap or a number of tiles out of bounds."""
    width, height = asked.width_px, asked.height_px
    if not 1 <= min(width, height) <= max(width, height) <= limits.max_px or width * height > limits.max_pixels:
        most = f"it may have {limits.max_pixels} pixels, {limits.max_px} on one side"
        raise InvalidRequest(f"The result would be {clip(str(width))}x{clip(str(height))}; {most}.", param="tiles")
    most_px = min(MOST_OVERLAP_PX, min(tile_px) - 1)
    if not 0 <= asked.overlap_px <= most_px:
        message = f"Tiles of {tile_px[0]}x{tile_px[1]} may overlap by 0 to {most_px} pixels"
        raise InvalidRequest(f"{message}; {clip(str(asked.overlap_px))} was asked.", param="tiles")
    tiles = Tiles(
        width_px=width,
        height_px=height,
        overlap_px=asked.overlap_px,
        enlarge=asked.enlarge,
        batch=max(1, asked.batch),
    )
    columns, rows = tiles.grid(*tile_px)
    if columns * rows > MOST_TILES:
        message = f"A picture is drawn in at most {MOST_TILES} tiles; these would be {columns * rows}."
        raise InvalidRequest(f"{message} Use larger tiles or less overlap.", param="tiles")
    return tiles


def check_inputs(spec: ModelSpec, *, begins: bool, others: tuple[str, ...]) -> None:
    """Whether a model draws over a picture in tiles; `others` are what else the request asks of pictures.

    Raises: InvalidRequest.
    """
    if not begins:
        raise InvalidRequest("Tiles need a picture that they are drawn over.", param="init_image")
    if not spec.init_image or spec.needs_mask or spec.needs_reference or spec.control is not None:
        raise InvalidRequest(f"{spec.name} cannot draw over a whole picture in tiles.", param="tiles")
    if others:
        raise InvalidRequest(f"Tiles go with no {others[0].replace('_', ' ')}.", param=others[0])
