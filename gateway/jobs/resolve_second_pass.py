"""The second pass ("hires fix") of a plan: from what was requested to values within bounds. Pure."""

from __future__ import annotations

from engine.catalog import ModelSpec
from engine.protocol import Enlargement, SamplerName, Sampling, ScheduleName, SecondPass
from gateway.errors import InvalidRequest, clip
from gateway.jobs.adjustments import Adjust, Value
from gateway.jobs.limits import Limits
from gateway.jobs.request import GenerationRequest, SecondPassRequest
from gateway.jobs.resolve_sampling import check_schedule_steps, sampler_of_pass
from gateway.jobs.resolve_values import steps_of


def second_pass_of(
    request: GenerationRequest,
    first_steps: int,
    sampling: Sampling | None,
    spec: ModelSpec,
    limits: Limits,
    as_sent: bool,
    adjust: Adjust,
) -> SecondPass:
    """The second pass of a request that has one; `sampling` is that of the first pass, for Stable Diffusion.

    Raises: InvalidRequest.
    """
    requested = request.second_pass
    assert requested is not None

    def adjust_second_pass(_: str, value: Value, used: Value, reason: str) -> None:
        adjust("second_pass", value, used, reason)

    sizes = []
    for px in (requested.width_px, requested.height_px):
        limits.check_side(px, "second_pass")
        sizes.append(px // spec.step_px * spec.step_px)
    limits.check_area(sizes[0], sizes[1], "second_pass")
    if (requested.width_px, requested.height_px) != tuple(sizes):
        size, used = f"{requested.width_px}x{requested.height_px}", f"{sizes[0]}x{sizes[1]}"
        adjust("second_pass", size, used, f"sizes are multiples of {spec.step_px}, rounded down")
    if not 0.0 <= requested.denoise <= 1.0:
        raise InvalidRequest("The denoising strength must be between 0 and 1.", param="denoise")
    steps = first_steps
    if requested.steps is not None:
        steps = steps_of(requested.steps, spec, limits, as_sent, adjust_second_pass)
    plain = SecondPass(
        width_px=sizes[0],
        height_px=sizes[1],
        steps=steps,
        denoise=requested.denoise,
        enlarge=_enlargement(requested, sampling is not None, adjust),
        prompt=requested.prompt,
    )
    if sampling is None:
        _adjust_unsampled(requested, spec, adjust)
        return plain
    check_schedule_steps(steps, requested.denoise, "denoise")
    guidance = requested.guidance
    if guidance is not None and not 0.0 <= guidance <= limits.max_guidance:
        message = f"guidance must be between 0 and {limits.max_guidance:g}."
        raise InvalidRequest(message, param="second_pass.guidance")
    sampler, schedule = sampler_of_pass(requested.sampler, requested.schedule, sampling, request.sampling, adjust)
    return plain.model_copy(update=_differing(request, requested, guidance, sampler, schedule))


def _differing(
    request: GenerationRequest,
    requested: SecondPassRequest,
    guidance: float | None,
    sampler: SamplerName | None,
    schedule: ScheduleName | None,
) -> dict[str, object]:
    """The values of the second pass of Stable Diffusion, None where they are those of the first."""
    negative = requested.negative_prompt
    return {
        "prompt": None if requested.prompt == request.prompt else requested.prompt,
        "negative_prompt": None if negative == (request.negative_prompt or "") else negative,
        "guidance": None if guidance == request.guidance else guidance,
        "sampler": sampler,
        "schedule": schedule,
    }


def _enlargement(requested: SecondPassRequest, is_sampled: bool, adjust: Adjust) -> Enlargement:
    if is_sampled or requested.enlarge in ("lanczos", "nearest"):
        return requested.enlarge
    adjust("second_pass.enlarge", requested.enlarge, "lanczos", "pictures are enlarged, not latents")
    return "lanczos"


def _adjust_unsampled(requested: SecondPassRequest, spec: ModelSpec, adjust: Adjust) -> None:
    """Report what both passes of other models have in common."""
    for name in ("negative_prompt", "guidance", "sampler", "schedule"):
        value = getattr(requested, name)
        if value not in (None, ""):
            shown = clip(value) if isinstance(value, str) else value
            adjust(f"second_pass.{name}", shown, None, f"both passes of {spec.name} are drawn alike")


def check_work(pixels: int, pixel_steps: int, count: int, limits: Limits, param: str) -> None:
    """Check the work for `count` images of `pixels` pixels in the end. Raises: InvalidRequest."""
    if pixels * count > limits.max_job_pixels:
        message = f"width x height x pictures must be at most {limits.max_job_pixels}; {pixels * count} were asked."
        raise InvalidRequest(message, param="count")
    if pixel_steps * count > limits.max_pixel_steps:
        asked = f"{pixel_steps * count} were asked"
        message = f"width x height x steps x pictures must be at most {limits.max_pixel_steps}; {asked}."
        raise InvalidRequest(message, param=param)
