"""How a body of txt2img or img2img asks to sample Stable Diffusion: its fields, its settings, its infotext. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from adapters.sdapi.options import accepted
from adapters.sdapi.prompt_tags import dynamic_ranks, split_tags
from adapters.sdapi.request_schemas import Generation, Img2Img, Txt2Img
from adapters.sdapi.sampling_options import sampling_of_options
from adapters.sdapi.values import to_float
from engine.protocol import Enlargement
from gateway.errors import InvalidRequest, clip
from gateway.jobs.adjustments import Adjustment
from gateway.jobs.resolve import SecondPassRequest
from gateway.jobs.sampling_request import SamplingRequest

LATENT_UPSCALERS: Mapping[str, Enlargement] = {
    "Latent": "latent",
    "Latent (antialiased)": "latent-antialiased",
    "Latent (bicubic)": "latent-bicubic",
    "Latent (bicubic antialiased)": "latent-bicubic-antialiased",
    "Latent (nearest)": "latent-nearest",
    "Latent (nearest-exact)": "latent-nearest-exact",
}
"""Upscalers of hires fix that enlarge latents. Source: A1111 1.10.1 modules/shared.py latent_upscale_modes."""
NUMBERS = (
    "eta",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "s_noise",
    "s_min_uncond",
    "initial_noise_multiplier",
    "refiner_switch_at",
)
"""Fields of a body with numbers that other models ignore, whatever they hold."""
SAME = ("", "none", "use same sampler", "use same scheduler", "use same checkpoint")
"""What the fields of the second pass hold where it is as the first, in lower case."""


def sampling_of(
    body: Txt2Img | Img2Img, options: Mapping[str, Any], infotext: SamplingRequest | None = None
) -> SamplingRequest:
    """The sampling of a body: its own fields, then `override_settings`, its infotext, and the client's `options`.

    Raises: InvalidRequest for a field that is no number.
    """
    sampler = body.sampler_name or body.sampler_index or None
    numbers: dict[str, Any] = {name: _number(body, name) for name in NUMBERS}
    fields = SamplingRequest(
        sampler=sampler,
        schedule=body.scheduler or "Automatic",
        seed_resize_width=body.seed_resize_from_w,
        seed_resize_height=body.seed_resize_from_h,
        refiner=body.refiner_checkpoint,
        **numbers,
    )
    if fields.refiner and fields.refiner_switch_at is None:
        fields = fields.model_copy(update={"refiner_switch_at": 0.0})  # A1111 switches before the first step
    override = sampling_of_options(accepted(body.override_settings), sampler or "")
    stored = sampling_of_options(accepted(options), sampler or "")
    if infotext is None:
        return fields.over(override).over(stored)
    return fields.over(override).over(infotext).over(stored.model_copy(update={"eta": None}))


def _number(body: Generation, name: str) -> float | None:
    """The number in a field that other models ignore; None where it is not sent. Raises: InvalidRequest."""
    value = getattr(body, name, None)
    try:
        return None if value is None else to_float(value)
    except PydanticCustomError as error:
        raise InvalidRequest(f"{name}: {error.message()}.", param=name) from None


def second_pass_of(body: Txt2Img, plain: SecondPassRequest) -> SecondPassRequest:
    """The second pass of Stable Diffusion, from what it has in common with other models."""

    def named(value: str | None) -> str | None:
        return None if (value or "").strip().lower() in SAME else value

    upscaler = body.hr_upscaler or "Latent"
    return plain.model_copy(
        update={
            "enlarge": LATENT_UPSCALERS.get(upscaler, plain.enlarge),
            "negative_prompt": body.hr_negative_prompt or None,
            "guidance": body.hr_cfg,
            "sampler": named(body.hr_sampler_name),
            "schedule": named(body.hr_scheduler),
        }
    )


def adjustments_of_tags(body: Txt2Img | Img2Img) -> Iterator[Adjustment]:
    """Adjustments for LoRA tags that change a LoRA's rank."""
    prompt = body.prompt if not body.disable_extra_networks else ""
    for name in dynamic_ranks(prompt):
        reason = "a LoRA is used at its own rank"
        yield Adjustment(param="prompt", asked=f"dyn of {clip(name)}", used=None, reason=reason)


def has_tags(prompt: str) -> bool:
    """Whether a prompt calls LoRAs."""
    return bool(split_tags(prompt)[1])
