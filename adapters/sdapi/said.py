"""The request field `infotext`: an old picture's text fills what the request leaves open. Pure.

Source: A1111 1.10.1 modules/api/api.py apply_infotext, modules/ui.py paste fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from adapters.sdapi.payloads import Generation
from adapters.sdapi.request import dropped
from adapters.shared.body import PROMPTS, validated
from gateway.errors import InvalidRequest, clip
from gateway.images.infotext import parse
from gateway.jobs.resolve import Adjustment

LABELS: Mapping[str, str] = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Distilled CFG Scale": "distilled_cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength",
    "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h",
    "Denoising strength": "denoising_strength",
    "Hires upscale": "hr_scale",
    "Hires upscaler": "hr_upscaler",
    "Hires steps": "hr_second_pass_steps",
    "Hires resize-1": "hr_resize_x",
    "Hires resize-2": "hr_resize_y",
    "Hires prompt": "hr_prompt",
    "Hires negative prompt": "hr_negative_prompt",
    "Mask blur": "mask_blur",
    "Masked area padding": "inpaint_full_res_padding",
}
MASKED_CONTENT = ("fill", "original", "latent noise", "latent nothing")
MODEL = "Model"
HIRES = ("Hires upscale", "Hires upscaler", "Hires resize-1")

T = TypeVar("T", bound=Generation)


def completed(asked: T, knows_model: Callable[[str], bool]) -> tuple[T, tuple[Adjustment, ...]]:
    """The request with its infotext read, and what of that could not be used. Long: call it in a thread.

    Raises: InvalidRequest for a prompt in it that is too long.
    """
    if not asked.infotext:
        return asked, ()
    update: dict[str, object] = {}
    left_out = []
    for field, value in _fields(parse(asked.infotext), knows_model):
        if field not in type(asked).model_fields or field in asked.model_fields_set:
            continue
        try:
            read = validated(type(asked), {field: value})
            if read.untaken:
                raise InvalidRequest("This is no value of that field.")
            update[field] = getattr(read, field)
        except InvalidRequest as error:
            if field in PROMPTS:  # without it another picture would be drawn
                raise InvalidRequest(error.message, param="infotext") from None
            left_out.append(dropped("infotext", f"{field}: {clip(str(value))}", None, error.message))
    return asked.model_copy(update=update), tuple(left_out)


def _fields(found: Mapping[str, str], knows_model: Callable[[str], bool]) -> Iterator[tuple[str, object]]:
    for label, field in LABELS.items():
        if label in found:
            yield field, found[label]
    if "Denoising strength" in found and any(label in found for label in HIRES):
        yield "enable_hr", True
    if found.get("Masked content") in MASKED_CONTENT:
        yield "inpainting_fill", MASKED_CONTENT.index(found["Masked content"])
    if "Mask mode" in found:
        yield "inpainting_mask_invert", found["Mask mode"] == "Inpaint not masked"
    if "Inpaint area" in found:
        yield "inpaint_full_res", found["Inpaint area"] == "Only masked"
    if MODEL in found and knows_model(found[MODEL]):
        yield "model", found[MODEL]
