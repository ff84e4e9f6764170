"""What a picture file says of how it was drawn: a text that we write and read back, and what other programs' files say.

The words are those of our own requests, so that what is read can be sent again. The file may come from a stranger.
Pure; decodes no pixel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from engine.protocol import Control, Generate, Upscale
from gateway.images import infotext
from gateway.images.clean_text import whole
from gateway.images.file_texts import USER_COMMENT, texts
from gateway.images.foreign import said_in
from gateway.images.png_chunks import with_text
from gateway.jobs.job import Plans
from gateway.jobs.resolve import SEED_MAX, SEED_MIN

KEYWORD = "mflux-gateway"
"""Of the PNG's text; in a JPEG or WebP it is EXIF's UserComment or ImageDescription, and begins with this word."""
MARK = f"{KEYWORD} "
DESCRIPTION = "ImageDescription"

Name = Annotated[str, Field(max_length=256), AfterValidator(whole)]
TEXT_CHARS = 65_536
Text = Annotated[str, Field(max_length=TEXT_CHARS), AfterValidator(whole)]
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
    """How one picture was drawn: by this gateway all of it, by another program what its file says and no more.

    A picture of a larger job has its own seed here.
    """

    program: Name | None = None
    """Whose picture it is, or in whose words it says so; null for our own."""
    prompt: Text | None = None
    negative_prompt: Text | None = None
    model: Name | None = None
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
    loras: Annotated[tuple[LoraDrawn, ...], Field(max_length=16)] = ()
    enlarged: EnlargedDrawn | None = None
    """Of a picture that was enlarged afterwards, the last time; all else is as it was before."""


def drawing_of(plan: Plans, seed: int) -> Drawing | None:
    """How the picture of this seed was drawn; None where that is not known, or longer than a file may say it, and for
    what draws nothing.
    """
    match plan:
        case Generate():
            fits = max(len(plan.prompt), len(plan.negative_prompt or "")) <= TEXT_CHARS
            return _drawn(plan, seed) if fits else None
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


@dataclass(frozen=True, slots=True)
class Signature:
    """What is written into one picture's file: our own text, and A1111's."""

    drawing: Drawing
    infotext: str

    @classmethod
    def of(cls, plan: Plans, image: int, seed: int) -> Signature | None:
        """Of picture number `image` of a job; None as `drawing_of`."""
        drawing = drawing_of(plan, seed)
        if drawing is None:
            return None
        further = dict(_further(plan, image)) if isinstance(plan, Generate) else {}
        return cls(drawing, to_infotext(drawing, further))


def signed(png: bytes, drawing: Drawing, infotext_too: str | None = None) -> bytes:
    """The same picture, with the text; `infotext_too` where A1111's readers look for theirs."""
    if infotext_too is not None:
        png = with_text(png, infotext.PNG_KEYWORD, infotext_too)
    return with_text(png, KEYWORD, to_text(drawing))


def to_infotext(drawing: Drawing, further: Mapping[str, object] | None = None) -> str:
    """A drawing in A1111's grammar, what is not said left out; `further` pairs come before the version."""
    is_ours = drawing.program is None
    sampler = infotext.SAMPLER if is_ours else drawing.sampler
    scheduler = infotext.SCHEDULER if is_ours else drawing.scheduler
    has_size = drawing.width is not None and drawing.height is not None
    pairs: dict[str, object] = {
        "Steps": drawing.steps,
        "Sampler": sampler and infotext.named(sampler, infotext.SAMPLERS),
        "Schedule type": scheduler and infotext.named(scheduler, infotext.SCHEDULERS),
        "CFG scale": _plain(drawing.guidance),
        "Seed": drawing.seed,
        "Size": f"{drawing.width}x{drawing.height}" if has_size else None,
        "Model": drawing.model,
        "Denoising strength": _plain(drawing.image_strength),
        **(further or {}),
        "Postprocess upscaler": drawing.enlarged and drawing.enlarged.model,
        "Version": infotext.VERSION if is_ours else None,
    }
    tags = (f"<lora:{lora.name}:{_plain(lora.scale)}>" for lora in drawing.loras)
    prompt = " ".join(part for part in (drawing.prompt, *tags) if part)
    return infotext.compose(prompt, drawing.negative_prompt or "", pairs)


def _plain(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value


def _further(plan: Generate, image: int) -> Iterator[tuple[str, object]]:
    """What A1111 says of variations and of a second pass."""
    if plan.subseed_strength > 0:
        yield "Variation seed", plan.subseeds[image]
        yield "Variation seed strength", _plain(plan.subseed_strength)
    if (second := plan.second_pass) is not None:
        yield "Denoising strength", _plain(second.denoise)
        yield "Hires resize", f"{second.width_px}x{second.height_px}"
        yield "Hires steps", second.steps if second.steps != plan.steps else None
        yield "Hires upscaler", second.enlarge.capitalize()
        yield "Hires prompt", second.prompt


@dataclass(frozen=True, slots=True)
class Carried:
    """What of a PNG's texts goes into the EXIF of a JPEG or WebP: UserComment and ImageDescription; None: nothing."""

    comment: str | None = None
    description: str | None = None


def carried(png: bytes) -> Carried:
    """Of a signed PNG: A1111's text is the comment, where its readers look; ours is it where there is no other."""
    found = texts(png)
    own, written = found.get(KEYWORD), found.get(infotext.PNG_KEYWORD)
    if own is None:
        return Carried(written)
    if written is not None:
        description = MARK + json.dumps(json.loads(own))  # ASCII, as the field's type is
        if len(description) + len(written.encode("ascii" if written.isascii() else "utf-16-be")) <= EXIF_BYTES:
            return Carried(written, description)
    return Carried(MARK + own)


EXIF_BYTES = 64_800
"""Of both texts that fit into one segment of a JPEG."""


def drawing_in(data: bytes) -> Drawing | None:
    """What a PNG, JPEG or WebP says of itself, by its texts alone; None where it says nothing that is known."""
    return drawing_by(texts(data))


def drawing_by(found: Mapping[str, str]) -> Drawing | None:
    """As `drawing_in`, by the file's texts."""
    if (own := own_text(found)) is not None:
        with suppress(ValidationError):
            return _telling(Drawing.model_validate_json(own))
    said = said_in(found)
    return None if said is None else _checked(said)


def _telling(drawing: Drawing) -> Drawing | None:
    """The drawing; None where it says nothing of how the picture was drawn."""
    said = (drawing.prompt, drawing.model, drawing.steps, drawing.seed)
    return None if said == (None, None, None, None) else drawing


def own_text(found: Mapping[str, str]) -> str | None:
    """Our own text among a file's."""
    if (text := found.get(KEYWORD)) is not None:
        return text
    for name in (USER_COMMENT, DESCRIPTION):
        if (text := found.get(name, "")).startswith(MARK):
            return text.removeprefix(MARK)
    return None


def _checked(said: Mapping[str, object]) -> Drawing | None:
    """Of what another program said, the fields that can be."""
    kept = {name: value for name, value in said.items() if value is not None}
    for _ in range(2):
        try:
            return _telling(Drawing.model_validate(kept))
        except ValidationError as error:
            wrong = {line["loc"][0] for line in error.errors(include_url=False, include_input=False)}
            kept = {name: value for name, value in kept.items() if name not in wrong}
    return None
