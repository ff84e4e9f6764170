"""The script "SD upscale" of img2img: one job enlarges an image and redraws it in tiles of width x height.

Source: A1111 1.10.1 scripts/sd_upscale.py; the enlargement: modules/upscaler.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from adapters.sdapi.control import unit_of
from adapters.sdapi.enlargement import STEP_PX
from adapters.sdapi.errors import no_such_upscaler
from adapters.sdapi.init_images import EDIT, InputImages
from adapters.sdapi.lists import MODEL_UPSCALERS, NO_UPSCALER
from adapters.sdapi.options import OutputOptions
from adapters.sdapi.request_schemas import Img2Img
from adapters.sdapi.resize import on_background, size_of, step_of
from adapters.sdapi.upscalers import upscalers_here, used_upscaler
from adapters.sdapi.values import times, to_float, to_int
from engine.catalog import ModelSpec
from gateway.context import Core
from gateway.errors import InvalidRequest, clip
from gateway.images.codec import base64_image, check_image, opened, to_png
from gateway.jobs.limits import Limits
from gateway.jobs.resolve import Adjustment
from gateway.jobs.resolve_tiles import TilesRequest, check_inputs, tiles_of
from gateway.round_robin import Share

PARAM = "script_args"
MOST_FACTOR = 64
DEFAULTS = ("", 64, 0, 2)
"""The script's default arguments: a text, the overlap in pixels, the upscaler by number, the factor."""


@dataclass(frozen=True, slots=True)
class SdUpscale:
    """The arguments of the script."""

    overlap_px: int
    upscaler: str
    factor: float
    named: str
    """The upscaler that the client named."""

    def target_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the result in pixels: unchanged without an upscaler, else multiples of 8."""
        if self.upscaler == NO_UPSCALER:
            return width, height
        return times(width, self.factor) // STEP_PX * STEP_PX, times(height, self.factor) // STEP_PX * STEP_PX

    @property
    def adjustments(self) -> Iterator[Adjustment]:
        if self.upscaler != self.named:
            yield Adjustment(
                param=f"{PARAM}.upscaler", asked=clip(self.named), used=self.upscaler, reason="that model is not here"
            )
        if self.upscaler == NO_UPSCALER and self.factor != 1:
            reason = "without an upscaler the picture keeps its size, as in A1111"
            yield Adjustment(param=f"{PARAM}.scale_factor", asked=self.factor, used=1, reason=reason)


def script_of(args: Any, upscalers: Sequence[str]) -> SdUpscale:
    """The script's arguments, in A1111's order; missing ones have defaults. `upscalers` are all, by number.

    Raises: InvalidRequest; AsA1111 for an unknown upscaler.
    """
    if not isinstance(args, list):
        raise InvalidRequest("script_args must be a list.", param=PARAM)
    given = [*args[: len(DEFAULTS)], *DEFAULTS[len(args) :]]
    _, overlap, upscaler, factor = (
        default if value is None else value for value, default in zip(given, DEFAULTS, strict=True)
    )
    try:
        overlap_px, number = to_int(overlap), to_float(factor)
    except PydanticCustomError:
        raise InvalidRequest("Tile overlap and scale factor are numbers.", param=PARAM) from None
    if not 0 < number <= MOST_FACTOR:
        message = f"The scale factor must be above 0 and at most {MOST_FACTOR}; {number:g} was asked."
        raise InvalidRequest(message, param=PARAM)
    name = (
        upscaler if isinstance(upscaler, str) and not upscaler.strip().isdecimal() else _numbered(upscaler, upscalers)
    )
    used = used_upscaler(name)
    if used in MODEL_UPSCALERS:
        message = f"SD upscale enlarges by Lanczos or Nearest: enlarge by {used} first, with extra-single-image"
        raise InvalidRequest(f"{message}, and send the result with the upscaler None.", param=PARAM)
    return SdUpscale(overlap_px, used, number, name)


def _numbered(value: object, upscalers: Sequence[str]) -> str:
    """The upscaler with a number. Raises: InvalidRequest, AsA1111."""
    try:
        number = to_int(value)
    except PydanticCustomError:
        raise InvalidRequest("The upscaler is a name or a number of GET upscalers.", param=PARAM) from None
    if not 0 <= number < len(upscalers):
        raise no_such_upscaler(str(number))
    return upscalers[number]


async def store_tiles(core: Core, body: Img2Img, spec: ModelSpec, output: OutputOptions, share: Share) -> InputImages:
    """The image that is redrawn, stored at its own size, and the tiles. All bounds are checked first.

    Raises: InvalidRequest, AsA1111.
    """
    script = script_of(body.script_args, await asyncio.to_thread(upscalers_here, core.library))
    check_inputs(spec, begins=bool(body.init_images), others=("mask",) if body.mask else ())
    if body.mode == EDIT or body.extra_images:
        raise InvalidRequest("SD upscale draws over a picture: it follows none.", param="mode")
    if unit_of(body.alwayson_scripts) is not None:
        raise InvalidRequest("SD upscale takes no ControlNet unit here.", param="alwayson_scripts")
    limits = core.settings.generation.limits.of(spec)
    tile_px = size_of(body.width, body.height, limits, step_of(spec))
    data = await core.files.read(share, base64_image, body.init_images[0], "init_images")
    image = await check_image(data, core.decoder, "init_images", share)
    tiles = _tiles(script, image.size_px, tile_px, limits, body.batch_size)
    flattened = image.unless_same(await core.files.run(share, _flat, image.png, output.background))
    adjustments = list(script.adjustments)
    if len(body.init_images) > 1:
        adjustments.append(
            Adjustment(
                param="init_images",
                asked=len(body.init_images),
                used=1,
                reason="SD upscale takes the first picture, as in A1111",
            )
        )
    return InputImages(
        init_images=(await core.service.inputs.keep(flattened, share),),
        tiles=tiles,
        params={"SD upscale overlap": script.overlap_px, "SD upscale upscaler": script.upscaler},
        adjustments=tuple(adjustments),
    )


def _tiles(
    script: SdUpscale, size_px: tuple[int, int], tile_px: tuple[int, int], limits: Limits, batch: int
) -> TilesRequest:
    """The tiles of an image. Raises: InvalidRequest."""
    width, height = script.target_of(*size_px)
    tiles = TilesRequest(
        width_px=width,
        height_px=height,
        overlap_px=script.overlap_px,
        enlarge="nearest" if script.upscaler == "Nearest" else "lanczos",
        batch=batch,
    )
    try:
        tiles_of(tiles, tile_px, limits)
    except InvalidRequest as error:
        error.param = PARAM
        raise
    return tiles


def _flat(png: bytes, background: str) -> bytes:
    return to_png(on_background(opened(png), background))
