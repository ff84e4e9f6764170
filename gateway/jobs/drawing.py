"""How one image was drawn, in the words of our own requests. Pure.

The texts in image files are made of it and read into it (`gateway/images/provenance.py`).
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from gateway.clean_text import whole
from gateway.jobs.resolve import SEED_MAX, SEED_MIN
from gateway.jobs.sampling_request import SamplingRequest
from gateway.lazy_model import DocumentedModel

Name = Annotated[str, Field(max_length=256), AfterValidator(whole)]
TEXT_CHARS = 65_536
Text = Annotated[str, Field(max_length=TEXT_CHARS), AfterValidator(whole)]
Seed = Annotated[int, Field(ge=SEED_MIN, le=SEED_MAX)]
Px = Annotated[int, Field(ge=1, le=65_536)]


class _Frozen(DocumentedModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class LoraDrawn(_Frozen):
    name: Name
    scale: float
    text_encoder_scale: float | None = None
    """null: `scale`."""


class ControlDrawn(_Frozen):
    type: Literal["canny", "depth"]
    image: Name
    edges: bool = False
    strength: float = 1.0


class EnlargedDrawn(_Frozen):
    """By what a picture was drawn larger, and to which size."""

    model: Name
    width: Px
    height: Px
    softness: float = 0.0
    seed: Seed


class Drawing(_Frozen):
    """How one picture was drawn: by this gateway all of it, by another program what its file says and no more.

    A picture of a larger job has its own seed here.
    """

    program: Name | None = None
    """Whose picture it is, or in whose words it says so; null for our own."""
    prompt: Text | None = None
    negative_prompt: Text | None = None
    model: Name | None = None
    model_hash: Name | None = None
    """Of another program: the first digits of the sha256 of the model's file, or A1111's former hash of 8 digits."""
    width: Px | None = None
    height: Px | None = None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    guidance: float | None = None
    seed: Seed | None = None
    sampler: Name | None = None
    """Of another program, in its words, as `scheduler`; here there is one of each."""
    scheduler: Name | None = None
    image_strength: float | None = None
    """Of a picture that began from another one: 0 kept that, 1 ignored it."""
    init_image: Name | None = None
    """sha256 of what it began from, which is an upload's id as long as that is kept."""
    mask: Name | None = None
    reference_images: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    control: ControlDrawn | None = None
    sampling: SamplingRequest | None = None
    """Of a picture of Stable Diffusion, as it is sent to draw it again."""
    loras: Annotated[tuple[LoraDrawn, ...], Field(max_length=16)] = ()
    enlarged: EnlargedDrawn | None = None
    """Of a picture that was enlarged afterwards, the last time; all else is as it was before."""


def to_text(drawing: Drawing) -> str:
    """The drawing as JSON, without fields that are None."""
    return json.dumps(drawing.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)
