"""The request field `infotext` with a Stable Diffusion model: its sampling, refiner and second pass. Pure."""

from __future__ import annotations

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
