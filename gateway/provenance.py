"""What a picture file says of how it was drawn: one text in it, written by us and read back. Pure; decodes no pixel.

The words are those of our own requests, so that what is read can be sent again. The file may come from a stranger.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from engine.protocol import Control, Generate, Upscale
from gateway.file_text import whole
from gateway.job import Plans
from gateway.picture_text import USER_COMMENT, texts
from gateway.png_text import with_text
from gateway.request import SEED_MAX, SEED_MIN

KEYWORD = "mflux-gateway"
"""Of the PNG's text; in a JPEG or WebP it is EXIF's UserComment, and begins with this word."""
MARK = f"{KEYWORD} "

Name = Annotated[str, Field(max_length=256), AfterValidator(whole)]
Text = Annotated[str, Field(max_length=65_536), AfterValidator(whole)]
Seed = Annotated[int, Field(ge=SEED_MIN, le=SEED_MAX)]
Px = Annotated[int, Field(ge=1, le=65_536)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class LoraDrawn(_Frozen):
    name: Name
    scale: float


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
    """How one picture was drawn. A picture of a larger job has its own seed here."""

    prompt: Text
    negative_prompt: Text | None = None
    model: Name
    width: Px
    height: Px
    steps: Annotated[int, Field(ge=1, le=10_000)]
    guidance: float
    seed: Seed
    image_strength: float | None = None
    """Of a picture that began from another one: 0 kept that, 1 ignored it."""
    init_image: Name | None = None
    """sha256 of what it began from, which is an upload's id as long as that is kept."""
    mask: Name | None = None
    reference_images: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    control: ControlDrawn | None = None
    loras: Annotated[tuple[LoraDrawn, ...], Field(max_length=16)] = ()
    enlarged: EnlargedDrawn | None = None
    """Of a picture that was enlarged afterwards, the last time; all else is as it was before."""


def drawing_of(plan: Plans, seed: int) -> Drawing | None:
    """How the picture of this seed was drawn; None where that is not known, and for what draws nothing."""
    match plan:
        case Generate():
            return _drawn(plan, seed)
        case Upscale(drawn=str(before)):
            return Drawing.model_validate_json(before).model_copy(update={"enlarged": _enlarged(plan)})
        case _:
            return None


def _drawn(plan: Generate, seed: int) -> Drawing:
    return Drawing(
        prompt=plan.prompt,
        negative_prompt=plan.negative_prompt,
        model=plan.model,
        width=plan.width_px,
        height=plan.height_px,
        steps=plan.steps,
        guidance=plan.guidance,
        seed=seed,
        image_strength=None if plan.init_image is None else plan.denoise,
        init_image=plan.init_image,
        mask=plan.mask,
        reference_images=plan.references,
        control=None if plan.control is None else _control(plan.control),
        loras=tuple(LoraDrawn(name=lora.name, scale=lora.scale) for lora in plan.loras),
    )


def _enlarged(plan: Upscale) -> EnlargedDrawn:
    return EnlargedDrawn(
        model=plan.model, width=plan.width_px, height=plan.height_px, softness=plan.softness, seed=plan.seed
    )


def _control(said: Control) -> ControlDrawn:
    edges = said.kind == "canny" and said.is_map
    return ControlDrawn(type=said.kind, image=said.image, edges=edges, strength=said.strength)


def to_text(drawing: Drawing) -> str:
    """Without what is not said."""
    return json.dumps(drawing.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)


def signed(png: bytes, drawing: Drawing) -> bytes:
    """The same picture, with the text."""
    return with_text(png, KEYWORD, to_text(drawing))


def carried(png: bytes) -> str | None:
    """The text of a signed PNG, as it goes into a JPEG's or WebP's UserComment."""
    text = texts(png).get(KEYWORD)
    return None if text is None else MARK + text


def drawing_in(data: bytes) -> Drawing | None:
    """What a PNG, JPEG or WebP says of itself; None where it says nothing, or nothing that we wrote."""
    found = texts(data)
    text = found.get(KEYWORD)
    if text is None and (comment := found.get(USER_COMMENT, "")).startswith(MARK):
        text = comment.removeprefix(MARK)
    if text is None:
        return None
    try:
        return Drawing.model_validate_json(text)
    except ValidationError:
        return None
