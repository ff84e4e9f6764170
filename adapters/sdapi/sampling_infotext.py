"""The request field `infotext` with a Stable Diffusion model: its sampling, refiner and second pass. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from adapters.sdapi.request_schemas import Generation
from adapters.shared.body import validated
from gateway.errors import InvalidRequest, clip
from gateway.images import sampling_infotext
from gateway.images.infotext import parse
from gateway.jobs.adjustments import Adjustment
from gateway.jobs.sampling_request import SamplingRequest

LABELS: Mapping[str, str] = {
    "Hires sampler": "hr_sampler_name",
    "Hires schedule type": "hr_scheduler",
    "Hires CFG Scale": "hr_cfg",
}
REFINER = "refiner_checkpoint"
OLD_FIRST_PIXELS, OLD_STEP_PX = 512 * 512, 64
"""Area of the first pass of A1111's hires fix before 2023, and what its sides were multiples of."""
FROM_BODY = ("sampler", "schedule", "refiner", "refiner_switch_at", "seed_resize_width", "seed_resize_height")
"""Values that the fields of a body hold, with those of its infotext."""

T = TypeVar("T", bound=Generation)


@dataclass(frozen=True, slots=True)
class SampledInfotext:
    """What an infotext says for a Stable Diffusion model beyond what it says for all."""

    sampling: SamplingRequest
    fields: Mapping[str, object]
    """Fields of a body."""
    adjustments: tuple[Adjustment, ...]

    def fill(self, body: T) -> T:
        """The body with the fields that it does not set itself."""
        update = {
            name: value
            for name, value in self.fields.items()
            if name in type(body).model_fields and name not in body.model_fields_set
        }
        return body.model_copy(update=update)


def _old_first_pass(pairs: Mapping[str, str]) -> dict[str, object]:
    """The size of the first pass, where an old infotext has it: its size is the second pass's then.

    Source: A1111 1.10.1 modules/infotext_utils.py restore_old_hires_fix_params, processing.py
    old_hires_fix_first_pass_dimensions.
    """
    names = ("First pass size-1", "First pass size-2", "Size-1", "Size-2")
    if not all(name in pairs for name in names) or "Denoising strength" not in pairs:
        return {}
    first_width, first_height, width, height = (int(pairs[name]) for name in names)
    if 0 in (first_width, first_height):
        scale = math.sqrt(OLD_FIRST_PIXELS / max(1, width * height))
        first_width, first_height = (math.ceil(scale * px / OLD_STEP_PX) * OLD_STEP_PX for px in (width, height))
    return {"enable_hr": True, "firstphase_width": first_width, "firstphase_height": first_height}


def sampling_in(text: str, find_model: Callable[[str], str | None], body: Generation) -> SampledInfotext:
    """The sampling of an infotext; `find_model` finds a model by name or title, for the refiner. Blocks."""
    pairs = parse(text)
    found = sampling_infotext.read(pairs)
    fields: dict[str, object] = {}
    unused = [f"{key}: {value}" for key, value in found.invalid.items()]
    refiner = found.sampling.refiner
    if refiner:
        if (name := find_model(refiner)) is None:
            unused.append(f"Refiner: {refiner}")
        else:
            switch_at = found.sampling.refiner_switch_at
            fields |= {REFINER: name, "refiner_switch_at": 0.0 if switch_at is None else switch_at}
    fields |= _old_first_pass(pairs)
    for label, field in LABELS.items():
        if label not in pairs or field not in type(body).model_fields:
            continue
        try:
            parsed = validated(type(body), {field: pairs[label]})
            if parsed.untaken:
                raise InvalidRequest("This is no value of that field.")
            fields[field] = getattr(parsed, field)
        except InvalidRequest:
            unused.append(f"{label}: {pairs[label]}")
    reason = "this cannot be had here"
    return SampledInfotext(
        found.sampling.model_copy(update=dict.fromkeys(FROM_BODY)),
        fields,
        tuple(Adjustment(param="infotext", asked=clip(one), used=None, reason=reason) for one in unused),
    )
