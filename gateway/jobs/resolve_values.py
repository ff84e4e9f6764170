"""Size, steps, guidance and seeds of a plan: from requested values to those within bounds. Pure."""

from __future__ import annotations

from collections.abc import Callable

from engine.catalog import ModelSpec
from engine.protocol import Tiles
from gateway.errors import InvalidRequest
from gateway.jobs.adjustments import Adjust
from gateway.jobs.limits import Limits
from gateway.jobs.resolve_sampling import is_sampled

SEED_MIN, SEED_MAX = -(2**63), 2**64 - 1
"""The range of clients' random seeds of 63 and 64 bits, and of mlx.random.key; -1 means random."""


def size_of(param: str, asked: int | None, spec: ModelSpec, limits: Limits, adjust: Adjust) -> int:
    """Length of a side in pixels, a multiple of the model's step. Raises: InvalidRequest."""
    if asked is None:
        return spec.default_px
    limits.check_side(asked, param)
    used = asked // spec.step_px * spec.step_px
    if used != asked:
        adjust(param, asked, used, f"sizes are multiples of {spec.step_px}, rounded down")
    return used


def steps_of(requested: int | None, spec: ModelSpec, limits: Limits, as_sent: bool, adjust: Adjust) -> int:
    """Number of steps; Stable Diffusion runs any within the limits, as A1111 does. Raises: InvalidRequest."""
    if requested is None:
        return spec.default_steps
    if not 1 <= requested <= limits.max_steps:
        raise InvalidRequest(f"steps must be between 1 and {limits.max_steps}.", param="steps")
    if is_sampled(spec):
        return requested
    if requested < spec.min_steps:
        adjust("steps", requested, spec.min_steps, f"{spec.name} takes {spec.min_steps} steps at least")
        return spec.min_steps
    if spec.distilled and requested > spec.useful_max_steps and (spec.fixed_steps or not as_sent):
        adjust("steps", requested, spec.useful_max_steps, f"{spec.name} is distilled: more steps add nothing")
        return spec.useful_max_steps
    return requested


def guidance_of(requested: float | None, spec: ModelSpec, limits: Limits, adjust: Adjust) -> float:
    """Guidance; Stable Diffusion takes any within the limits, as A1111 does. Raises: InvalidRequest."""
    if requested is None:
        return spec.default_guidance
    if not 0.0 <= requested <= limits.max_guidance:
        raise InvalidRequest(f"guidance must be between 0 and {limits.max_guidance:g}.", param="guidance")
    if is_sampled(spec):
        return requested
    if spec.distilled and requested != spec.default_guidance:
        adjust("guidance", requested, spec.default_guidance, f"{spec.name} is distilled: its guidance is fixed")
        return spec.default_guidance
    low, high = spec.guidance_range
    used = min(max(requested, low), high)
    if used != requested:
        adjust("guidance", requested, used, f"{spec.name} takes guidance from {low:g} to {high:g}")
    return used


def seed_of(param: str, requested: int | None, random_seed: Callable[[], int]) -> int:
    """A seed; -1 and None are random. Raises: InvalidRequest."""
    seed = random_seed() if requested is None or requested == -1 else requested
    if not SEED_MIN <= seed <= SEED_MAX:
        raise InvalidRequest(f"{param} must be between {SEED_MIN} and {SEED_MAX}.", param=param)
    return seed


def subseeds_of(subseed: int, count: int, tiles: Tiles | None) -> tuple[int, ...]:
    """One subseed for each image; the tiles of every image begin at the first one, as in A1111."""
    return following(subseed, count) if tiles is None else (subseed,) * count


def following(seed: int, count: int) -> tuple[int, ...]:
    """`count` consecutive seeds; after the last one comes 0."""
    return tuple(seed + i if seed + i <= SEED_MAX else seed + i - SEED_MAX - 1 for i in range(count))
