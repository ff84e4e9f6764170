"""Tiles of an image that is enlarged and redrawn part by part: from a request to a plan. Pure."""

from __future__ import annotations

from typing import Literal

from engine.catalog import ModelSpec
from engine.protocol import Frozen, Tiles
from gateway.errors import InvalidRequest, clip
from gateway.jobs.limits import Limits

MOST_TILES = 256
MOST_OVERLAP_PX = 256
"""The most overlap of tiles in pixels, as of A1111's slider."""


class TilesRequest(Frozen):
    """The requested tiles; their size is the size in the request."""

    width_px: int
    height_px: int
    """Of the result."""
    overlap_px: int
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    batch: int = 1


def tiles_of(requested: TilesRequest, tile_px: tuple[int, int], limits: Limits) -> Tiles:
    """The tiles of a plan. Raises: InvalidRequest for a size, overlap or number of tiles out of bounds."""
    width, height = requested.width_px, requested.height_px
    if not 1 <= min(width, height) <= max(width, height) <= limits.max_px or width * height > limits.max_pixels:
        most = f"it may have {limits.max_pixels} pixels, {limits.max_px} on one side"
        raise InvalidRequest(f"The result would be {clip(str(width))}x{clip(str(height))}; {most}.", param="tiles")
    most_px = min(MOST_OVERLAP_PX, min(tile_px) - 1)
    if not 0 <= requested.overlap_px <= most_px:
        message = f"Tiles of {tile_px[0]}x{tile_px[1]} may overlap by 0 to {most_px} pixels"
        raise InvalidRequest(f"{message}; {clip(str(requested.overlap_px))} was asked.", param="tiles")
    tiles = Tiles(
        width_px=width,
        height_px=height,
        overlap_px=requested.overlap_px,
        enlarge=requested.enlarge,
        batch=max(1, requested.batch),
    )
    columns, rows = tiles.grid(*tile_px)
    if columns * rows > MOST_TILES:
        message = f"A picture is drawn in at most {MOST_TILES} tiles; these would be {columns * rows}."
        raise InvalidRequest(f"{message} Use larger tiles or less overlap.", param="tiles")
    return tiles


def check_inputs(spec: ModelSpec, *, begins: bool, others: tuple[str, ...]) -> None:
    """Check that a model can redraw an image in tiles; `others` are other parameters of images in the request.

    Raises: InvalidRequest.
    """
    if not begins:
        raise InvalidRequest("Tiles need a picture that they are drawn over.", param="init_image")
    if not spec.init_image or spec.needs_mask or spec.needs_reference or spec.control is not None:
        raise InvalidRequest(f"{spec.name} cannot draw over a whole picture in tiles.", param="tiles")
    if others:
        raise InvalidRequest(f"Tiles go with no {others[0].replace('_', ' ')}.", param=others[0])
