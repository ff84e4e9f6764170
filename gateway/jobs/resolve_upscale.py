"""From an upscale request to a complete plan. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.catalog import ModelSpec
from engine.protocol import Frozen, MemoryCheck, Upscale
from gateway.errors import InvalidRequest
from gateway.jobs.drawing import Drawing, to_text
from gateway.jobs.resolve import SEED_MAX, SEED_MIN, Limits

DEFAULT_SCALE = 2.0
MAX_SCALE = 16.0
MIN_PX = 16
MAX_EDGE_PX = 8192
DRAWN_CHARS = 100_000
"""The most characters of the input image's own parameters; longer ones are left out."""
VIDEO_MARKS = ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (0, b"FLV"), (0, b"OggS"), (0, b"\x00\x00\x01\xba"))


class UpscaleRequest(Frozen):
    """The canonical request to upscale an image. None means: not in the client's request."""

    image: str
    """The name of the input image."""
    from_width_px: int
    from_height_px: int
    """Height of the input image."""
    model: str | None = None
    scale: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    """Size of the result; with both, the smallest size of the image's proportions that covers them."""
    softness: float | None = None
    seed: int | None = None
    drawn: Drawing | None = None
    """How the input image was drawn, where that is known."""
    memory: MemoryCheck = "check"


def resolve(
    request: UpscaleRequest,
    spec: ModelSpec,
    limits: Limits,
    *,
    random_seed: Callable[[], int],
    default_quantize: int | None = None,
) -> Upscale:
    """The plan of an upscale request. Raises: InvalidRequest naming the parameter."""
    if spec.task != "upscale":
        raise InvalidRequest(f"{spec.name} draws pictures; it does not upscale them.", param="model")
    softness = 0.0 if request.softness is None else request.softness
    if not 0.0 <= softness <= 1.0:
        raise InvalidRequest("softness must be between 0 and 1.", param="softness")
    seed = random_seed() if request.seed in (None, -1) else request.seed
    assert seed is not None
    if not SEED_MIN <= seed <= SEED_MAX:
        raise InvalidRequest(f"seed must be between {SEED_MIN} and {SEED_MAX}.", param="seed")
    scale, param = _scale(request)
    short_px = _even(round(min(request.from_width_px, request.from_height_px) * scale, 6))
    width_px, height_px = size_of(request.from_width_px, request.from_height_px, short_px)
    if min(width_px, height_px) < MIN_PX:
        raise InvalidRequest(f"The result must be at least {MIN_PX} pixels on every side.", param=param)
    if max(width_px, height_px) > MAX_EDGE_PX or width_px * height_px > limits.max_upscaled_pixels:
        raise InvalidRequest(
            f"The result would be {width_px}x{height_px}; it may have at most {limits.max_upscaled_pixels} pixels, "
            f"{MAX_EDGE_PX} on one side.",
            param=param,
        )
    drawn = None if request.drawn is None else to_text(request.drawn)
    return Upscale(
        model=spec.name,
        image=request.image,
        width_px=width_px,
        height_px=height_px,
        short_px=short_px,
        softness=softness,
        seed=seed,
        quantize=spec.quantize or default_quantize,
        drawn=drawn if drawn and len(drawn) <= DRAWN_CHARS else None,
        memory=request.memory,
    )


def size_of(width_px: int, height_px: int, short_px: int) -> tuple[int, int]:
    """Width and height of the result, as mflux computes them. Source: mflux 0.24 SeedVR2Util.preprocess_image."""
    scale = short_px / min(width_px, height_px)
    return int(width_px * scale) // 2 * 2, int(height_px * scale) // 2 * 2


def is_video(data: bytes) -> bool:
    """Whether a file is a video, by its first bytes."""
    return any(data[at : at + len(mark)] == mark for at, mark in VIDEO_MARKS)


def _scale(request: UpscaleRequest) -> tuple[float, str]:
    """The scale of the result, and the parameter that gives it."""
    sizes = {"width": (request.width_px, request.from_width_px), "height": (request.height_px, request.from_height_px)}
    scales = {param: px / before for param, (px, before) in sizes.items() if px is not None}
    if scales and request.scale is not None:
        raise InvalidRequest("Say how large by scale, or by width and height.", param="scale")
    scale = max(scales.values()) if scales else DEFAULT_SCALE if request.scale is None else request.scale
    param = max(scales, key=lambda name: scales[name]) if scales else "scale"
    if not math.isfinite(scale) or not 1.0 <= scale <= MAX_SCALE:
        raise InvalidRequest(f"The result must be 1 to {MAX_SCALE:g} times as large.", param=param)
    return scale, param


def _even(px: float) -> int:
    """A length rounded up to an even number, so that the requested size is covered."""
    return math.ceil(px / 2) * 2
