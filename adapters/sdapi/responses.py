"""Responses of txt2img and img2img: images, the echo of the request, and `info`. Pure; knows no HTTP."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from adapters.sdapi.field_names import adjustments_of
from adapters.sdapi.masks import MASKED_CONTENT, mask_use
from adapters.sdapi.options import OutputOptions
from adapters.sdapi.progress import timestamp
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.resize import as_rgb, cut_out
from engine.protocol import Generate
from gateway.images.codec import encode
from gateway.images.infotext import PNG_KEYWORD, SAMPLER, SCHEDULER, VERSION, compose
from gateway.images.png_chunks import with_text, without_text
from gateway.images.sampling_infotext import UPSCALERS, extra_pairs, pairs_of
from gateway.jobs.job import Job
from gateway.jobs.resolve import Adjustment
from gateway.jobs.sampling_files import FileHashes

NO_SEPARATORS = str.maketrans("", "", ":,")


@dataclass(frozen=True, slots=True)
class RenderInput:
    """The input of a response: an ended job, the body of its request, and adjustments that the core does not know."""

    body: Txt2Img | Img2Img
    """The body with its infotext, styles and scripts applied."""
    job: Job
    plan: Generate
    adjustments: tuple[Adjustment, ...] = ()
    original: Txt2Img | Img2Img | None = None
    """The body as the client sent it, where that differs from `body`."""
    output: OutputOptions = OutputOptions()
    overlay: bytes | None = None
    """The mask as a PNG, where the response includes it."""
    lora_hashes: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    """Infotext parameters of a script."""
    file_hashes: FileHashes = FileHashes()
    """Hashes of the files of Stable Diffusion."""
    inpaints: bool = False
    """Whether the model is an inpainting checkpoint."""
    lora_tensors: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By LoRA, how many of its tensors apply to the model, and how many it has."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the first pass; an image may be larger."""
        return self.plan.width_px, self.plan.height_px

    @property
    def subseeds(self) -> tuple[int, ...]:
        """One subseed for each image; without strength they have no effect, as in A1111."""
        if self.plan.subseeds:
            return self.plan.subseeds
        first = self.plan.seeds[0] if self.body.subseed == -1 else self.body.subseed
        return tuple(first + i for i in range(len(self.plan.seeds)))


def to_body(result: RenderInput, pngs: Sequence[bytes]) -> bytes:
    """The JSON of the whole response; `pngs` are the finished images in order, none where none are sent.

    The images are inserted as base64: a JSON encoder would escape them character by character.
    """
    texts = infotexts(result)
    files = (file for png, text in zip(pngs, texts, strict=False) for file in files_of(png, text, result))
    images = [b64encode(file) for file in files]
    rest = {"parameters": parameters(result), "info": json.dumps(info(result), ensure_ascii=False)}
    listed = b'"' + b'","'.join(images) + b'"' if images else b""
    return b'{"images":[' + listed + b"]," + json.dumps(rest).encode()[1:]


def files_of(png: bytes, infotext: str, result: RenderInput) -> Iterator[bytes]:
    """The file of an image, and those of its mask where they are requested.

    Source: A1111 1.10.1 `return_mask`, `return_mask_composite`; the latter is cut out of the finished image here.
    """
    output = result.output
    yield file_of(png, infotext, output)
    if result.overlay is None:
        return
    for is_requested, make_png in ((output.with_mask, as_rgb), (output.with_cut_out, partial(cut_out, png))):
        if is_requested:
            yield encode(make_png(result.overlay), format=output.format, quality=output.quality)


def file_of(png: bytes, infotext: str, output: OutputOptions) -> bytes:
    """A stored image in the requested format. Source: A1111 1.10.1 `samples_format`, `enable_pnginfo`."""
    text = infotext if output.with_infotext else None
    if output.format == "png":
        return without_text(png) if text is None else with_text(without_text(png, PNG_KEYWORD), PNG_KEYWORD, text)
    return encode(png, format=output.format, quality=output.quality, text=text)


def parameters(result: RenderInput) -> dict[str, Any]:
    """The echo of the request with all defaults; values that the model decides are shown as used.

    Source: A1111 1.10.1 TextToImageResponse.parameters: images only where `include_init_images`.
    """
    body, plan = result.body, result.plan
    echo = (result.original or body).model_dump()
    for name, used in (("steps", plan.steps), ("cfg_scale", plan.guidance), ("model", plan.model)):
        if echo[name] is None:
            echo[name] = used
    if isinstance(body, Img2Img) and not body.include_init_images:
        echo.update(init_images=None, mask=None)
    return echo


def info(result: RenderInput) -> dict[str, Any]:
    """The `info` of a response: the values that were used.

    Source: A1111 1.10.1 Processed.js; `comments` is Processed's, which A1111 shows only on its page; `job_id` and
    `adjustments` are added by this gateway.
    """
    body, job, plan = result.body, result.job, result.plan
    width_px, height_px = result.size_px
    count, sampling = len(plan.seeds), plan.sampling
    return {
        "prompt": body.prompt,
        "all_prompts": [body.prompt] * count,
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": [body.negative_prompt] * count,
        "seed": plan.seeds[0],
        "all_seeds": list(plan.seeds),
        "subseed": result.subseeds[0],
        "all_subseeds": list(result.subseeds),
        "subseed_strength": plan.subseed_strength,
        "width": width_px,
        "height": height_px,
        "sampler_name": SAMPLER if sampling is None else sampling.sampler,
        "cfg_scale": plan.guidance,
        "steps": plan.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": plan.model,
        "sd_model_hash": result.file_hashes.model,
        "sd_vae_name": None if sampling is None else sampling.vae,
        "sd_vae_hash": result.file_hashes.vae,
        "seed_resize_from_w": body.seed_resize_from_w,
        "seed_resize_from_h": body.seed_resize_from_h,
        "denoising_strength": plan.denoise if plan.init_image is not None else body.denoising_strength,
        "extra_generation_params": extra_params(result),
        "index_of_first_image": 0,
        "infotexts": infotexts(result),
        "styles": list(body.styles),
        "job_timestamp": timestamp(job.started_at or job.created_at),
        "clip_skip": 1 if sampling is None else sampling.clip_skip,
        "is_using_inpainting_conditioning": result.inpaints,
        "version": VERSION,
        "comments": comments(result.job),
        "job_id": job.id,
        "adjustments": [item.model_dump() for item in adjustments(result)],
    }


def comments(job: Job) -> str:
    """Warnings about text that was cut off from prompts, one paragraph each; empty where none was.

    Source: A1111, modules/sd_hijack_clip_old.py, for prompts longer than one chunk of CLIP.
    """
    cuts = [(one.tokens - one.limit, one.cut) for one in job.readings if one.limit is not None]
    return "".join(
        f"Warning: too many input tokens; some ({count}) have been truncated:\n{text}\n\n" for count, text in cuts
    )


def adjustments(result: RenderInput) -> list[Adjustment]:
    """All adjustments of a job, of the protocol and of the core."""
    rows = adjustments_of(result.body, result.adjustments, result.job.all_adjustments)
    for image in result.job.images:
        if image.cut_short:
            reason = f"picture {image.image} was skipped and finished as it stood"
            rows.append(Adjustment(param="steps", asked=result.plan.steps, used=None, reason=reason))
    return rows


def extra_params(result: RenderInput) -> dict[str, object]:
    """Infotext parameters of the second pass, the mask and the LoRAs; `Lora tensors` is added by this gateway.

    Source: A1111 1.10.1 modules/processing.py, extensions-builtin/Lora/extra_networks_lora.py.
    """
    body, plan = result.body, result.plan
    params: dict[str, object] = dict(result.params)
    if plan.sampling is not None:
        params |= extra_pairs(plan, result.file_hashes)
        params.pop("Hires resize", None)
    if plan.second_pass is not None and isinstance(body, Txt2Img):
        if body.hr_resize_x or body.hr_resize_y:
            params["Hires resize"] = f"{body.hr_resize_x}x{body.hr_resize_y}"
        else:
            params["Hires upscale"] = body.hr_scale
        if plan.second_pass.steps != plan.steps:
            params["Hires steps"] = plan.second_pass.steps
        params["Hires upscaler"] = UPSCALERS[plan.second_pass.enlarge]
        if plan.second_pass.prompt is not None:
            params["Hires prompt"] = body.hr_prompt
    if plan.mask is not None and isinstance(body, Img2Img):
        across, down = mask_use(body).blur
        params["Mask blur"] = across if across == down else None
        params["Mask mode"] = "Inpaint not masked" if body.inpainting_mask_invert else None
        params["Inpaint area"] = "Only masked" if body.inpaint_full_res else None
        params["Masked area padding"] = body.inpaint_full_res_padding if body.inpaint_full_res else None
        params["Masked content"] = MASKED_CONTENT[body.inpainting_fill] if body.inpainting_fill != 1 else None
    listed = [f"{name.translate(NO_SEPARATORS)}: {text}" for name, text in result.lora_hashes.items()]
    params["Lora hashes"] = ", ".join(listed) or params.get("Lora hashes")
    counted = [
        f"{name.translate(NO_SEPARATORS)}: {used} of {all_}" for name, (used, all_) in result.lora_tensors.items()
    ]
    params["Lora tensors"] = ", ".join(counted) or None
    return {key: value for key, value in params.items() if value is not None}


def infotexts(result: RenderInput) -> list[str]:
    """The infotext of each finished image, as A1111 writes it into the file."""
    return [infotext(result, image.image) for image in result.job.images]


def infotext(result: RenderInput, image: int) -> str:
    """The infotext of image number `image`. Source: A1111 1.10.1 create_infotext: its key order."""
    body, plan = result.body, result.plan
    if plan.sampling is not None:
        further = {"Hires resize": None, **extra_params(result)}
        return compose(body.prompt, body.negative_prompt, pairs_of(plan, image, result.file_hashes, further))
    varied = plan.subseed_strength > 0
    denoise = plan.denoise if plan.init_image is not None else None
    pairs: dict[str, object] = {
        "Steps": plan.steps,
        "Sampler": SAMPLER,
        "Schedule type": SCHEDULER,
        "CFG scale": plan.guidance,
        "Seed": plan.seeds[image],
        "Size": f"{plan.width_px}x{plan.height_px}",
        "Model": plan.model,
        "Variation seed": result.subseeds[image] if varied else None,
        "Variation seed strength": plan.subseed_strength if varied else None,
        "Denoising strength": plan.second_pass.denoise if plan.second_pass else denoise,
        **extra_params(result),
        "Version": VERSION,
    }
    return compose(body.prompt, body.negative_prompt, pairs)
