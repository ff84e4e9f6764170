"""From the sampling of a request to that of a plan, for Stable Diffusion; what of it other models can honour. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.catalog import ModelSpec
from engine.catalog.spec import STABLE_DIFFUSION
from engine.protocol import Emphasis, Refiner, SamplerName, Sampling, ScheduleName
from gateway.errors import InvalidRequest, clip
from gateway.jobs.adjustments import Adjust, Leniency, Value
from gateway.jobs.samplers import (
    AUTOMATIC,
    DEFAULT_SAMPLER,
    SAMPLER_BY_NAME,
    SCHEDULE_BY_LABEL,
    match,
    match_schedule,
    named_schedule,
    plain_schedule,
)
from gateway.jobs.sampling_files import SamplingFiles
from gateway.jobs.sampling_request import SamplingRequest

FLOW_SAMPLER, FLOW_SCHEDULES = "Euler", ("Automatic", "Simple")
"""What all other models do: their flow-matching sigmas are evenly spaced before the shift."""
RANGES = {
    "eta": (0.0, 1.0),
    "s_churn": (0.0, 100.0),
    "s_tmin": (0.0, 10.0),
    "s_tmax": (0.0, 999.0),
    "s_noise": (0.0, 1.1),
    "sigma_min": (0.0, 10_000.0),
    "sigma_max": (0.0, 10_000.0),
    "rho": (0.0, 100.0),
    "clip_skip": (1, 12),
    "comma_padding_backtrack": (0, 74),
    "s_min_uncond": (0.0, 15.0),
    "skip_early_cond": (0.0, 1.0),
    "initial_noise_multiplier": (0.0, 1.5),
    "img2img_extra_noise": (0.0, 1.0),
    "refiner_switch_at": (0.0, 1.0),
    "eta_noise_seed_delta": (-(2**63), 2**63 - 1),
    "seed_resize_width": (-1, 8192),
    "seed_resize_height": (-1, 8192),
}
"""Least and most value of each number. Source: the sliders of A1111 1.10.1."""
AS_ASKED = (
    "discard_penultimate_sigma",
    "eta_noise_seed_delta",
    "clip_skip",
    "comma_padding_backtrack",
    "s_min_uncond",
    "skip_early_cond",
    "pad_cond_uncond",
    "downcast_alphas_cumprod",
    "old_prompt_editing",
    "sgm_noise_multiplier",
    "initial_noise_multiplier",
    "img2img_extra_noise",
    "img2img_fix_steps",
)
"""Values that are those of the request, within their ranges."""
LATENT_PX = 8
"""Pixels of one side of a latent."""
MOST_SCHEDULE_STEPS = 1000
"""Timesteps of the models: no schedule can have more steps."""
LATENT_SPACES: tuple[frozenset[str], ...] = (frozenset({"sd1", "sd2"}), frozenset({"sdxl", "sdxl_refiner"}))
"""Families whose latents mean the same, so that one can go on with an image of the other."""
DISTILLED_SCHEDULE: ScheduleName = "SGM Uniform"
"""The schedule of Turbo models where the client names none: they were trained on its timesteps."""
REFINER_SWITCH_AT = 0.8
NO_VAE, AUTOMATIC_VAE = "none", ("automatic", "auto")
"""Names of A1111's option for the VAE, in lower case: the model's own, and one beside the checkpoint."""


@dataclass(frozen=True, slots=True)
class SamplingNeeds:
    """What else of a request its sampling depends on."""

    prompts: tuple[str, ...]
    """All prompts, negative ones too."""
    size_px: tuple[int, int]
    """Width and height in pixels."""


def is_sampled(spec: ModelSpec) -> bool:
    """Whether a model is of the Stable Diffusion families, whose plans have a `Sampling`."""
    return spec.family in STABLE_DIFFUSION


def default_schedule(spec: ModelSpec) -> ScheduleName:
    """The schedule of a Stable Diffusion model where the client names none."""
    return DISTILLED_SCHEDULE if spec.distilled else AUTOMATIC


def resolve_sampling(
    request: SamplingRequest | None,
    needs: SamplingNeeds,
    spec: ModelSpec,
    files: SamplingFiles,
    *,
    leniency: Leniency,
    adjust: Adjust,
) -> Sampling:
    """Decide every value for a Stable Diffusion model and check every bound. Raises: InvalidRequest."""
    asked = request or SamplingRequest()
    _check_ranges(asked)

    def refuse(name: str, value: Value, used: Value, reason: str) -> None:
        if leniency == "refuse":
            raise InvalidRequest(f"{reason[0].upper()}{reason[1:]}.", param=f"sampling.{name}")
        adjust(f"sampling.{name}", value, used, reason)

    sampler, named = _sampler_and_schedule(asked, spec, refuse)
    schedule = plain_schedule(sampler, named)
    vae = _vae(asked.vae, files, refuse)
    if vae is None and spec.needs_vae:
        message = f"{spec.name} has no VAE of its own: name a VAE file of the library (sd_vae)."
        raise InvalidRequest(message, param="sampling.vae")
    read = _read_by(sampler, asked, adjust)
    zero_terminal_snr = spec.zero_terminal_snr or bool(asked.zero_terminal_snr)
    if zero_terminal_snr and spec.prediction == "epsilon":
        reason = f"{spec.name} predicts noise, and only models that predict v can begin at noise alone"
        refuse("zero_terminal_snr", "true", "false", reason)
        zero_terminal_snr = False
    said = asked.said()
    return Sampling(
        sampler=sampler,
        schedule=schedule,
        **read,
        **{name: said[name] for name in AS_ASKED if name in said},  # type: ignore[arg-type]
        sigma_min=asked.sigma_min or None,
        sigma_max=asked.sigma_max or None,
        rho=_rho(asked, schedule, sampler),
        random_source=_random_source(asked.random_source, refuse),
        emphasis=_emphasis(asked.emphasis, refuse),
        zero_terminal_snr=zero_terminal_snr,
        seed_resize_px=_seed_resize(asked, needs.size_px),
        vae=vae,
        embeddings=embeddings_in(needs.prompts, files.embeddings),
        refiner=_refiner(asked, spec, files, refuse),
    )


def adjust_unsampled(request: SamplingRequest, spec: ModelSpec, adjust: Adjust) -> None:
    """Report what of a sampling another model does not honour: all but Euler with its own even schedule."""
    defaults = Sampling().model_dump()
    for name, value in request.said().items():
        used: Value = None
        if name == "sampler":
            found = match(str(value))
            if found.schedule not in (None, *FLOW_SCHEDULES):
                adjust("sampling.schedule", found.schedule, FLOW_SCHEDULES[1], "the only schedule there is")
            used = FLOW_SAMPLER
            if found.sampler == used:
                continue
        elif name == "schedule":
            used = FLOW_SCHEDULES[1]
            if match_schedule(str(value)) in FLOW_SCHEDULES:
                continue
        elif value == defaults.get(name) or (name == "vae" and str(value).lower() in (NO_VAE, *AUTOMATIC_VAE)):
            continue
        reason = f"{spec.name} has no such thing" if used is None else f"the only {name} of {spec.name}"
        adjust(f"sampling.{name}", clip(value) if isinstance(value, str) else value, used, reason)


def check_schedule_steps(steps: int, denoise: float, param: str) -> None:
    """Check a pass that runs exactly `steps` from the noise for `denoise`: its schedule has steps / denoise steps.

    Source: A1111 1.10.1 modules/sd_samplers_common.py setup_img2img_steps. Raises: InvalidRequest.
    """
    if denoise > 0 and int(steps / min(denoise, 0.999)) > MOST_SCHEDULE_STEPS:
        least = steps / MOST_SCHEDULE_STEPS
        message = f"{steps} steps need a denoising strength of at least {least:g}; {denoise:g} was asked."
        raise InvalidRequest(message, param=param)


def embeddings_in(prompts: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The textual inversions whose names occur in a prompt, in any case."""
    texts = [prompt.lower() for prompt in prompts]
    return tuple(name for name in names if any(name.lower() in text for text in texts))


def sampler_of_pass(
    sampler: str | None, schedule: str | None, first: Sampling, asked: SamplingRequest | None, adjust: Adjust
) -> tuple[SamplerName | None, ScheduleName | None]:
    """Sampler and schedule of the second pass, where they differ from the first's; None: the same.

    An unknown sampler means the first's, an unknown schedule Automatic. Source: A1111 1.10.1 modules/processing.py.
    """
    found = match(sampler or "")
    used = found.sampler or first.sampler
    if sampler and found.sampler is None:
        adjust("second_pass.sampler", clip(sampler), first.sampler, "there is no such sampler")
    label = found.schedule
    if schedule is not None and (label := match_schedule(schedule) or found.schedule) is None:
        adjust("second_pass.schedule", clip(schedule), AUTOMATIC, "there is no such schedule")
        label = AUTOMATIC
    if label is None:
        label = _said_schedule(asked) or first.schedule
    plain = plain_schedule(used, label)
    if used == first.sampler:
        return None, None if plain == first.schedule else plain
    return used, plain


def _said_schedule(asked: SamplingRequest | None) -> ScheduleName | None:
    """The schedule that the first pass was asked for, also where it is the one that Automatic means there."""
    if asked is None:
        return None
    return match(asked.sampler or "", asked.schedule).schedule


_Refuse = Callable[[str, Value, Value, str], None]


def _check_ranges(asked: SamplingRequest) -> None:
    for name, (least, most) in RANGES.items():
        value = getattr(asked, name)
        if value is not None and not least <= value <= most:
            raise InvalidRequest(f"{name} must be between {least:g} and {most:g}.", param=f"sampling.{name}")
    if asked.sigma_min and asked.sigma_max and asked.sigma_min >= asked.sigma_max:
        raise InvalidRequest("sigma_min must be below sigma_max.", param="sampling.sigma_min")


def _sampler_and_schedule(asked: SamplingRequest, spec: ModelSpec, refuse: _Refuse) -> tuple[SamplerName, ScheduleName]:
    found = match(asked.sampler or "", asked.schedule)
    sampler = found.sampler or Sampling().sampler
    if asked.sampler and found.sampler is None:
        sampler = DEFAULT_SAMPLER
        refuse("sampler", clip(asked.sampler), sampler, "there is no such sampler")
    schedule = found.schedule
    if asked.schedule and schedule is None:
        refuse("schedule", clip(asked.schedule), AUTOMATIC, "there is no such schedule")
        schedule = AUTOMATIC
    if schedule is None:
        schedule = default_schedule(spec)
    elif schedule != AUTOMATIC and not SAMPLER_BY_NAME[sampler].has_schedule:
        refuse("schedule", schedule, AUTOMATIC, f"{sampler} has its own timesteps and reads no schedule")
    return sampler, schedule


def _read_by(sampler: SamplerName, asked: SamplingRequest, adjust: Adjust) -> dict[str, Any]:
    """The values of noise that the sampler reads; others are reported, except those that clients send with every
    sampler.
    """
    traits = SAMPLER_BY_NAME[sampler]
    is_read = {
        "eta": traits.default_eta is not None,
        "s_churn": traits.churns,
        "s_tmin": traits.churns,
        "s_tmax": traits.churns,
        "s_noise": traits.has_noise_scale,
    }
    neutral = {"eta": (0.0, 1.0), "s_churn": (0.0,), "s_tmin": (0.0,), "s_tmax": (0.0,), "s_noise": (1.0,)}
    values: dict[str, Any] = {}
    for name, is_used in is_read.items():
        value = getattr(asked, name)
        if value is None:
            continue
        if is_used:
            values[name] = value
        elif value not in neutral[name]:
            adjust(f"sampling.{name}", value, None, f"{sampler} does not read it")
    if values.get("eta") == traits.default_eta:
        values.pop("eta", None)
    if values.get("s_tmax") == 0:
        values["s_tmax"] = None
    return values


def _rho(asked: SamplingRequest, schedule: ScheduleName, sampler: SamplerName) -> float | None:
    """The steepness, where the schedule has one and it is not the schedule's own."""
    default = SCHEDULE_BY_LABEL[named_schedule(sampler, schedule)].default_rho
    return None if default == -1 or asked.rho in (None, 0, default) else asked.rho


def _random_source(name: str | None, refuse: _Refuse) -> Literal["CPU", "NV"]:
    """The random source; A1111's GPU is the CPU's generator on a Mac."""
    match (name or "CPU").strip().upper():
        case "CPU" | "GPU":
            return "CPU"
        case "NV":
            return "NV"
        case _:
            refuse("random_source", clip(name or ""), "CPU", "the random source must be CPU or NV")
            return "CPU"


def _emphasis(name: str | None, refuse: _Refuse) -> Emphasis:
    known: dict[str, Emphasis] = {one.lower(): one for one in get_args(Emphasis)}
    found = known.get((name or "Original").strip().lower())
    if found is None:
        refuse("emphasis", clip(name or ""), "Original", f"the emphasis must be one of {', '.join(known.values())}")
        return "Original"
    return found


def _seed_resize(asked: SamplingRequest, size_px: tuple[int, int]) -> tuple[int, int] | None:
    width, height = asked.seed_resize_width or 0, asked.seed_resize_height or 0
    if width <= 0 or height <= 0:
        return None
    sizes = width // LATENT_PX * LATENT_PX, height // LATENT_PX * LATENT_PX
    if min(sizes) == 0:
        raise InvalidRequest(f"Sizes must be at least {LATENT_PX}.", param="sampling.seed_resize_width")
    return None if sizes == size_px else sizes


def _vae(name: str | None, files: SamplingFiles, refuse: _Refuse) -> str | None:
    plain = (name or "automatic").strip().lower()
    if plain in AUTOMATIC_VAE:
        return files.automatic_vae
    if plain == NO_VAE:
        return None
    if files.vae is None:
        refuse("vae", clip(name or ""), files.automatic_vae, "there is no such VAE file in the library")
        return files.automatic_vae
    return files.vae


def _refiner(asked: SamplingRequest, spec: ModelSpec, files: SamplingFiles, refuse: _Refuse) -> Refiner | None:
    name = (asked.refiner or "").strip()
    if name.lower() in ("", "none"):
        return None
    refiner = files.refiner
    if refiner is None:
        raise InvalidRequest(f"There is no model '{clip(name)}' here to refine with.", param="sampling.refiner")
    if refiner.name == spec.name:
        return None
    if not any({spec.family, refiner.family} <= space for space in LATENT_SPACES):
        message = f"{refiner.name} cannot go on with an image of {spec.name}: their latents differ."
        raise InvalidRequest(message, param="sampling.refiner")
    switch_at = REFINER_SWITCH_AT if asked.refiner_switch_at is None else asked.refiner_switch_at
    return Refiner(model=refiner.name, switch_at=switch_at)
