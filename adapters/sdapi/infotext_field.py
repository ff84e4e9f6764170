"""The request field `infotext`: the generation parameters of an earlier image fill the fields that are not set.

Source: A1111 1.10.1 modules/api/api.py apply_infotext, modules/ui.py paste fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from adapters.sdapi.masks import MASKED_CONTENT
from adapters.sdapi.request_schemas import Generation
from adapters.shared.body import PROMPTS, validated
from gateway.context import Core
from gateway.errors import InvalidRequest, clip
from gateway.images.infotext import parse
from gateway.jobs.resolve import Adjustment
from gateway.round_robin import Share

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
MODEL, MODEL_HASH = "Model", "Model hash"
HIRES = ("Hires upscale", "Hires upscaler", "Hires resize-1")

T = TypeVar("T", bound=Generation)


async def complete(
    core: Core, body: T, find_model: Callable[[str], str | None], share: Share
) -> tuple[T, tuple[Adjustment, ...]]:
    """As `completed`, in a thread for work on clients' data."""
    return await core.files.run(share, completed, body, find_model) if body.infotext else (body, ())


def completed(body: T, find_model: Callable[[str], str | None]) -> tuple[T, tuple[Adjustment, ...]]:
    """The body with the fields of its infotext, and adjustments for those that could not be used. Blocks.

    `find_model` is the name of a model by its name or hash; None: it is not here.
    Raises: InvalidRequest for a prompt in it that is too long.
    """
    if not body.infotext:
        return body, ()
    update: dict[str, object] = {}
    adjustments = []
    for field, value in _fields(parse(body.infotext), find_model):
        if field not in type(body).model_fields or field in body.model_fields_set:
            continue
        try:
            parsed = validated(type(body), {field: value})
            if parsed.untaken:
                raise InvalidRequest("This is no value of that field.")
            update[field] = getattr(parsed, field)
        except InvalidRequest as error:
            if field in PROMPTS:  # without it another image would be drawn
                raise InvalidRequest(error.message, param="infotext") from None
            adjustments.append(
                Adjustment(param="infotext", asked=f"{field}: {clip(str(value))}", used=None, reason=error.message)
            )
    return body.model_copy(update=update), tuple(adjustments)


def _fields(pairs: Mapping[str, str], find_model: Callable[[str], str | None]) -> Iterator[tuple[str, object]]:
    for label, field in LABELS.items():
        if label in pairs:
            yield field, pairs[label]
    if "Denoising strength" in pairs and any(label in pairs for label in HIRES):
        yield "enable_hr", True
    if pairs.get("Masked content") in MASKED_CONTENT:
        yield "inpainting_fill", MASKED_CONTENT.index(pairs["Masked content"])
    if "Mask mode" in pairs:
        yield "inpainting_mask_invert", pairs["Mask mode"] == "Inpaint not masked"
    if "Inpaint area" in pairs:
        yield "inpaint_full_res", pairs["Inpaint area"] == "Only masked"
    found = (find_model(pairs[key]) for key in (MODEL_HASH, MODEL) if key in pairs)
    if (model := next((name for name in found if name is not None), None)) is not None:
        yield "model", model
