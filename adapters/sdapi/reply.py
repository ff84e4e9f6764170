"""A finished job as A1111 answers it: pictures, the echo of the request, and `info`. Pure; knows no HTTP."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.sdapi.payloads import Img2Img, Txt2Img
from adapters.sdapi.progress import timestamp
from adapters.sdapi.request import SAMPLER, SCHEDULER, adjustments_of
from engine.protocol import Generate
from gateway import __version__
from gateway.job import Job
from gateway.png_text import with_text
from gateway.request import Adjustment

VERSION = f"mflux-gateway {__version__}"
PNG_KEYWORD = "parameters"


@dataclass(frozen=True, slots=True)
class Told:
    """A job that ended, what its client asked for, and what was left out before the core heard of it."""

    asked: Txt2Img | Img2Img
    job: Job
    plan: Generate
    dropped: tuple[Adjustment, ...] = ()

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the pictures as they are."""
        if self.job.images:
            return self.job.images[0].width_px, self.job.images[0].height_px
        return self.plan.width_px, self.plan.height_px


def to_body(told: Told, pngs: Sequence[bytes]) -> bytes:
    """The JSON of the whole reply; `pngs` are the finished pictures in order, none where none are sent.

    The pictures are spliced in as base64: a JSON encoder would walk every one of their characters.
    """
    texts = infotexts(told)
    images = [b64encode(with_text(png, PNG_KEYWORD, text)) for png, text in zip(pngs, texts, strict=False)]
    rest = {"parameters": parameters(told), "info": json.dumps(info(told), ensure_ascii=False)}
    listed = b'"' + b'","'.join(images) + b'"' if images else b""
    return b'{"images":[' + listed + b"]," + json.dumps(rest).encode()[1:]


def parameters(told: Told) -> dict[str, Any]:
    """The request with every default filled in; what the model decides shows as decided.

    Source: A1111 1.10.1 TextToImageResponse.parameters: pictures only where `include_init_images`.
    """
    asked, plan = told.asked, told.plan
    echo = asked.model_dump()
    for name, used in (("steps", plan.steps), ("cfg_scale", plan.guidance), ("model", plan.model)):
        if echo[name] is None:
            echo[name] = used
    if isinstance(asked, Img2Img) and not asked.include_init_images:
        echo.update(init_images=None, mask=None)
    return echo


def info(told: Told) -> dict[str, Any]:
    """What was used, not what was asked.

    Source: A1111 1.10.1 Processed.js; `job_id` and `adjustments` are ours.
    """
    asked, job, plan = told.asked, told.job, told.plan
    width_px, height_px = told.size_px
    count = len(plan.seeds)
    subseed = plan.seeds[0] if asked.subseed == -1 else asked.subseed
    return {
        "prompt": asked.prompt,
        "all_prompts": [asked.prompt] * count,
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": [asked.negative_prompt] * count,
        "seed": plan.seeds[0],
        "all_seeds": list(plan.seeds),
        "subseed": subseed,
        "all_subseeds": [subseed + i for i in range(count)],
        "subseed_strength": 0,
        "width": width_px,
        "height": height_px,
        "sampler_name": SAMPLER,
        "cfg_scale": plan.guidance,
        "steps": plan.steps,
        "batch_size": asked.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": plan.model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": asked.seed_resize_from_w,
        "seed_resize_from_h": asked.seed_resize_from_h,
        "denoising_strength": plan.denoise if plan.init_image is not None else asked.denoising_strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": infotexts(told),
        "styles": list(asked.styles),
        "job_timestamp": timestamp(job.started_at or job.created_at),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": VERSION,
        "job_id": job.id,
        "adjustments": [item.model_dump() for item in adjustments(told)],
    }


def adjustments(told: Told) -> list[Adjustment]:
    """Everything that was not done as asked."""
    found = adjustments_of(told.asked, told.dropped, told.job.adjustments)
    for image in told.job.images[:1]:
        size, drawn = f"{image.width_px}x{image.height_px}", f"{image.drawn_px[0]}x{image.drawn_px[1]}"
        if drawn != size:
            reason = f"{told.plan.model} draws at its own size; the picture was scaled to {size}"
            found.append(Adjustment(param="size", asked=size, used=drawn, reason=reason))
    return found


def infotexts(told: Told) -> list[str]:
    """One text a finished picture, as A1111 writes it into the file."""
    return [infotext(told, image.seed) for image in told.job.images]


def infotext(told: Told, seed: int) -> str:
    """Prompt, negative prompt, and one line of `Key: value` pairs.

    Source: A1111 1.10.1 create_infotext: its key order, and keys without a value left out.
    """
    asked, plan = told.asked, told.plan
    width_px, height_px = told.size_px
    pairs: dict[str, object] = {
        "Steps": plan.steps,
        "Sampler": SAMPLER,
        "Schedule type": SCHEDULER,
        "CFG scale": plan.guidance,
        "Seed": seed,
        "Size": f"{width_px}x{height_px}",
        "Model": plan.model,
    }
    if plan.init_image is not None:
        pairs["Denoising strength"] = plan.denoise
    pairs["Version"] = VERSION
    negative = [f"Negative prompt: {asked.negative_prompt}"] if asked.negative_prompt else []
    line = ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items())
    return "\n".join([asked.prompt, *negative, line]).strip()


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
