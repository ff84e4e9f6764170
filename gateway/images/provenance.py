"""Provenance of an image file: the text on how it was made, written and read by us, and other programs' texts.

The text uses the words of our own requests, so that it can be sent again. Files may be untrusted.
Pure; decodes no pixel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from engine.protocol import Control, Generate, Upscale
from gateway.images import infotext, sampling_infotext
from gateway.images.file_texts import USER_COMMENT, texts
from gateway.images.foreign import fields_in
from gateway.images.png_chunks import with_text
from gateway.jobs.drawing import TEXT_CHARS, ControlDrawn, Drawing, EnlargedDrawn, LoraDrawn, to_text
from gateway.jobs.job import Plans
from gateway.jobs.samplers import K_DIFFUSION_SAMPLERS, OTHER_SCHEDULES, name_in_a1111
from gateway.jobs.sampling_files import FileHashes
from gateway.jobs.sampling_request import request_of

KEYWORD = "mflux-gateway"
"""Keyword of the PNG text; in a JPEG or WebP, EXIF's UserComment or ImageDescription begins with this word."""
MARK = f"{KEYWORD} "
DESCRIPTION = "ImageDescription"
NO_HASHES = FileHashes()


def drawing_of(plan: Plans, seed: int) -> Drawing | None:
    """How the image with this seed was made; None if unknown, too long for a file, or if the plan makes no image."""
    match plan:
        case Generate():
            fits = max(len(plan.prompt), len(plan.negative_prompt or "")) <= TEXT_CHARS
            return _generated(plan, seed) if fits else None
        case Upscale(drawn=str(before)):
            return Drawing.model_validate_json(before).model_copy(update={"enlarged": _enlargement(plan)})
        case _:
            return None


def _generated(plan: Generate, seed: int) -> Drawing:
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
        sampling=None if plan.sampling is None else request_of(plan.sampling),
        loras=tuple(
            LoraDrawn(name=lora.name, scale=lora.scale, text_encoder_scale=lora.text_encoder_scale)
            for lora in plan.loras
        ),
    )


def _enlargement(plan: Upscale) -> EnlargedDrawn:
    return EnlargedDrawn(
        model=plan.model, width=plan.width_px, height=plan.height_px, softness=plan.softness, seed=plan.seed
    )


def _control(control: Control) -> ControlDrawn:
    edges = control.kind == "canny" and control.is_map
    return ControlDrawn(type=control.kind, image=control.image, edges=edges, strength=control.strength)


@dataclass(frozen=True, slots=True)
class Signature:
    """Texts for one image file: our own, and A1111's infotext."""

    drawing: Drawing
    infotext: str

    @classmethod
    def of(cls, plan: Plans, image: int, seed: int, hashes: FileHashes = NO_HASHES) -> Signature | None:
        """The texts for image number `image` of a job; None in the cases of `drawing_of`."""
        drawing = drawing_of(plan, seed)
        if drawing is None:
            return None
        if isinstance(plan, Generate) and plan.sampling is not None:
            pairs = sampling_infotext.pairs_of(plan, image, hashes)
            return cls(drawing, infotext.compose(_with_tags(plan), plan.negative_prompt or "", pairs))
        further = dict(_extra_pairs(plan, image)) if isinstance(plan, Generate) else {}
        return cls(drawing, to_infotext(drawing, further))


def _with_tags(plan: Generate) -> str:
    """The prompt of a plan with A1111's tags of its LoRAs, without which it is the plan's prompt again."""
    scales = ((lora.name, _plain(lora.text_encoder_scale), _plain(lora.scale)) for lora in plan.loras)
    tags = (f"<lora:{name}:{unet if te is None else f'{te}:{unet}'}>" for name, te, unet in scales)
    return "".join((plan.prompt, *tags))


def signed(png: bytes, drawing: Drawing, infotext_too: str | None = None) -> bytes:
    """The same image with the text; `infotext_too` is written where A1111's readers look."""
    if infotext_too is not None:
        png = with_text(png, infotext.PNG_KEYWORD, infotext_too)
    return with_text(png, KEYWORD, to_text(drawing))


def to_infotext(drawing: Drawing, further: Mapping[str, object] | None = None) -> str:
    """A drawing as A1111's infotext, without fields that are None; `further` pairs come before the version."""
    is_ours = drawing.program is None
    sampler = infotext.SAMPLER if is_ours else drawing.sampler
    scheduler = infotext.SCHEDULER if is_ours else drawing.scheduler
    if is_ours and drawing.sampling is not None:
        sampler, scheduler = drawing.sampling.sampler, drawing.sampling.schedule
    has_size = drawing.width is not None and drawing.height is not None
    pairs: dict[str, object] = {
        "Steps": drawing.steps,
        "Sampler": sampler and name_in_a1111(sampler, K_DIFFUSION_SAMPLERS),
        "Schedule type": scheduler and name_in_a1111(scheduler, OTHER_SCHEDULES),
        "CFG scale": _plain(drawing.guidance),
        "Seed": drawing.seed,
        "Size": f"{drawing.width}x{drawing.height}" if has_size else None,
        "Model hash": drawing.model_hash,
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


def _extra_pairs(plan: Generate, image: int) -> Iterator[tuple[str, object]]:
    """A1111's pairs for variations and for a second pass."""
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
    """Texts of a PNG that go into the EXIF of a JPEG or WebP: UserComment and ImageDescription; None: neither."""

    comment: str | None = None
    description: str | None = None


def carried(png: bytes) -> Carried:
    """The texts of a signed PNG: A1111's is the comment, where its readers look; without it, ours is."""
    by_keyword = texts(png)
    own, written = by_keyword.get(KEYWORD), by_keyword.get(infotext.PNG_KEYWORD)
    if own is None:
        return Carried(written)
    if written is not None:
        description = MARK + json.dumps(json.loads(own))  # ASCII, which the EXIF field requires
        if len(description) + len(written.encode("ascii" if written.isascii() else "utf-16-be")) <= EXIF_BYTES:
            return Carried(written, description)
    return Carried(MARK + own)


EXIF_BYTES = 64_800
"""Bytes of both texts that fit into one segment of a JPEG."""


def drawing_in(data: bytes) -> Drawing | None:
    """How a PNG, JPEG or WebP was made, by its texts alone; None if they say nothing known."""
    return drawing_by(texts(data))


def drawing_by(by_keyword: Mapping[str, str]) -> Drawing | None:
    """Like `drawing_in`, from the texts of a file."""
    if (own := own_text(by_keyword)) is not None:
        with suppress(ValidationError):
            return _unless_empty(Drawing.model_validate_json(own))
    fields = fields_in(by_keyword)
    return None if fields is None else _checked(fields)


def _unless_empty(drawing: Drawing) -> Drawing | None:
    """The drawing; None if it says nothing of how the image was made."""
    values = (drawing.prompt, drawing.model, drawing.steps, drawing.seed)
    return None if values == (None, None, None, None) else drawing


def own_text(by_keyword: Mapping[str, str]) -> str | None:
    """Our own text among the texts of a file."""
    if (text := by_keyword.get(KEYWORD)) is not None:
        return text
    for name in (USER_COMMENT, DESCRIPTION):
        if (text := by_keyword.get(name, "")).startswith(MARK):
            return text.removeprefix(MARK)
    return None


def _checked(fields: Mapping[str, object]) -> Drawing | None:
    """The valid fields of another program's text."""
    valid = {name: value for name, value in fields.items() if value is not None}
    for _ in range(2):
        try:
            return _unless_empty(Drawing.model_validate(valid))
        except ValidationError as error:
            wrong = {line["loc"][0] for line in error.errors(include_url=False, include_input=False)}
            valid = {name: value for name, value in valid.items() if name not in wrong}
    return None
