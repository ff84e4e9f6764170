"""txt2img and img2img: from the body of a request to the canonical request, in one pass.

Each step has a file of its own and is entered once; differences from the request are collected as adjustments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from adapters.sdapi import infotext_field, scripts, styles
from adapters.sdapi.checkpoints import known_name, name_of
from adapters.sdapi.control import follow
from adapters.sdapi.errors import InitImageNotFound, no_such_upscaler
from adapters.sdapi.field_names import GUIDANCE_FIELDS, client_param_names
from adapters.sdapi.ignored_fields import ignored
from adapters.sdapi.init_images import InputImages, store_images
from adapters.sdapi.lists import HR_UPSCALER, HR_UPSCALERS, stands_in_for
from adapters.sdapi.options import MEMORY, OutputOptions, output_options
from adapters.sdapi.prompt_tags import split_tags, without_hash
from adapters.sdapi.request_schemas import Generation, Img2Img, Txt2Img
from adapters.sdapi.sampling import sampling_of
from adapters.sdapi.sampling import second_pass_of as sampled_second_pass
from adapters.sdapi.sampling_infotext import SampledInfotext, sampling_in
from adapters.sdapi.sd_upscale import store_tiles
from adapters.sdapi.values import times
from engine.protocol import Lora, MemoryCheck
from gateway.context import Core
from gateway.errors import InvalidRequest, clip
from gateway.jobs.resolve import Adjustment, GenerationRequest, Limits, SecondPassRequest
from gateway.jobs.resolve_sampling import is_sampled
from gateway.jobs.sampling_request import SamplingRequest
from gateway.models.library import Library
from gateway.round_robin import Share

CLIENT_STEPS = 150
"""The most steps of A1111's slider; up to this, too many steps are cut rather than refused."""
PREVIEWS = 2
"""The most previews of an image, for `current_image` of /progress; A1111 makes one every 10 steps."""
RESIZE_MODES = (0, 1, 2, 3)
WEIGHTS = (".ckpt", ".safetensors", ".pt", ".pth", ".gguf")

_NOTHING = ("", "none")


@dataclass(frozen=True, slots=True)
class Translation:
    """The canonical request of a body, and what its response needs besides."""

    body: Txt2Img | Img2Img
    """The body with its infotext, styles and scripts applied."""
    request: GenerationRequest
    adjustments: tuple[Adjustment, ...]
    """Adjustments made before the core sees the request."""
    checkpoint: str | None
    """The model that the body names."""
    output: OutputOptions
    images: InputImages


async def translate(
    core: Core, body: Txt2Img | Img2Img, *, checkpoint: str | None, options: Mapping[str, object], share: Share
) -> Translation:
    """The translation of a body; `checkpoint` (for bodies that name no model) and `options` are the client's settings.

    Raises: InvalidRequest naming the field, where another image than the requested one would result; ModelNotFound,
    AsA1111, InitImageNotFound.
    """
    generation, library = core.settings.generation, core.library
    infotext = body.infotext
    body, of_infotext = await infotext_field.complete(core, body, partial(known_name, library), share)
    body, of_styles = await styles.apply(generation.styles_file, body)
    body, of_scripts = scripts.apply(body)
    body, of_model = _without_foreign_model(library, body)
    named = named_model(library, body)
    known = known_name(library, named or checkpoint or library.default)
    sampled = known is not None and is_sampled(library.find(known))
    check(body, refines=sampled)
    output = output_options(options, body.override_settings)
    sampling: SamplingRequest | None = None
    if sampled:
        read: SampledInfotext | None = None
        if infotext:
            read = await core.files.run(share, sampling_in, infotext, partial(known_name, library), body)
            body, of_infotext = read.fill(body), (*of_infotext, *read.adjustments)
        sampling = sampling_of(body, options, None if read is None else read.sampling)
    with client_param_names(body):
        spec = library.find(named or checkpoint)
        if isinstance(body, Img2Img) and body.is_sd_upscale:
            control = None
            images = await store_tiles(core, body, spec, output, share)
        else:
            control = await follow(core, body, spec, share)
            images = await store_images(core, body, spec if control is None else control.spec, output, share)
        previews = generation.previews and output.previews
        request, of_body = to_request(
            body, checkpoint=checkpoint, limits=generation.limits, previews=previews, images=images, sampling=sampling
        )
        request = request.model_copy(update={"model": named or checkpoint})
    adjustments = (*of_infotext, *(() if control is None else control.adjustments), *of_styles, *of_scripts, *of_model)
    if control is not None:
        request = request.model_copy(update={"model": control.spec.name, "control": control.control})
    return Translation(body, request, (*adjustments, *of_body), named, output, images)


def check(body: Txt2Img | Img2Img, *, refines: bool = False) -> None:
    """Refuse what cannot be drawn and must not be ignored; `refines`: the model can have a refiner.

    Raises: InvalidRequest, InitImageNotFound.
    """
    if not refines and (body.refiner_checkpoint or "").lower() not in _NOTHING:
        raise InvalidRequest("There is no refiner here.", param="refiner_checkpoint")
    match body:
        case Img2Img(init_images=[]):
            raise InitImageNotFound
        case Img2Img(resize_mode=mode) if mode not in RESIZE_MODES:
            raise InvalidRequest("resize_mode must be 0 (stretch), 1 (crop), 2 (fill) or 3.", param="resize_mode")
        case _:
            pass


def to_request(
    body: Txt2Img | Img2Img,
    *,
    checkpoint: str | None,
    limits: Limits,
    previews: bool = True,
    images: InputImages | None = None,
    sampling: SamplingRequest | None = None,
) -> tuple[GenerationRequest, tuple[Adjustment, ...]]:
    """The canonical request of a checked body and its stored images, and adjustments for ignored fields. Pure.

    `sampling` is for Stable Diffusion.

    Raises: InvalidRequest, AsA1111.
    """
    images = images or InputImages()
    prompt, tags = split_tags(body.prompt)
    loras = (*(() if body.disable_extra_networks else tags), *_lora_files(body))
    width, height = body.first_size
    steps = _within(body.steps, limits)
    denoise = None
    if images.init_images:
        denoise = denoise_of(body) if images.denoise is None else images.denoise
    request = GenerationRequest(
        prompt=prompt,
        model=model_of(body) or checkpoint,
        negative_prompt=body.negative_prompt or None,
        width_px=width,
        height_px=height,
        steps=steps,
        guidance=_first(*(getattr(body, name) for name in GUIDANCE_FIELDS)),
        seed=body.seed,
        count=count_of(body),
        init_image=images.init_images[0] if images.init_images else None,
        further_init_images=images.init_images[1:],
        denoise=denoise,
        stretch_latents=images.stretch_latents,
        low_ram=True if body.low_ram else None,
        memory=memory_of(body),
        second_pass=second_pass_of(body, limits, is_sampled=sampling is not None),
        tiles=images.tiles,
        mask=images.mask,
        mask_content=images.mask_content,
        paste=images.paste,
        references=images.references,
        subseed=body.subseed,
        subseed_strength=body.subseed_strength,
        sampling=sampling,
        loras=loras,
        previews=PREVIEWS if previews else 0,
    )
    return request, (*images.adjustments, *ignored(body, steps, is_sampled=sampling is not None))


def second_pass_of(body: Txt2Img | Img2Img, limits: Limits, *, is_sampled: bool = False) -> SecondPassRequest | None:
    """The second pass of hires fix. Raises: AsA1111 for an unknown upscaler."""
    if not isinstance(body, Txt2Img) or not body.enable_hr:
        return None
    upscaler = body.hr_upscaler or HR_UPSCALER
    if upscaler not in HR_UPSCALERS and not stands_in_for(upscaler):
        raise no_such_upscaler(upscaler)
    width, height = second_size(body)
    plain = SecondPassRequest(
        width_px=width,
        height_px=height,
        steps=_within(body.hr_second_pass_steps or None, limits),
        denoise=body.denoising_strength,
        enlarge=HR_UPSCALERS.get(upscaler, "lanczos"),
        prompt=split_tags(body.hr_prompt)[0] or None,
    )
    return sampled_second_pass(body, plain) if is_sampled else plain


def second_size(body: Txt2Img) -> tuple[int, int]:
    """Width and height of the second pass: by a factor, or from one or two sides.

    Source: A1111 1.10.1 StableDiffusionProcessingTxt2Img.calculate_target_resolution.
    """
    width, height = body.first_size
    if (width, height) != (body.width, body.height):
        return body.width, body.height
    match body.hr_resize_x, body.hr_resize_y:
        case 0, 0:
            return times(width, body.hr_scale), times(height, body.hr_scale)
        case x, 0:
            return x, x * height // max(1, width)
        case 0, y:
            return y * width // max(1, height), y
        case both:
            return both


def model_of(body: Generation) -> str | None:
    """The model that a body names, in the order `model`, `sd_model_checkpoint`, `override_settings`."""
    return next((without_hash(title) for title in _titles_of(body)), None)


def _titles_of(body: Generation) -> tuple[str, ...]:
    override = body.override_settings.get("sd_model_checkpoint")
    names = (body.model, body.sd_model_checkpoint, override if isinstance(override, str) else None)
    return tuple(name for name in names if name)


def memory_of(body: Generation) -> MemoryCheck:
    """`memory` of the body, else of `override_settings`, to which alone some clients let their users add."""
    check = body.memory if body.memory is not None else body.override_settings.get(MEMORY)
    return "try" if check == "try" else "check"


def count_of(body: Generation) -> int:
    """The number of images. Raises: InvalidRequest."""
    for name in ("batch_size", "n_iter"):
        if getattr(body, name) < 1:
            raise InvalidRequest(f"{name} must be at least 1.", param=name)
    if body.is_sd_upscale:
        return body.num_images if body.num_images is not None and body.num_images >= 1 else body.n_iter
    init_count = len(body.init_images) if isinstance(body, Img2Img) and body.mode != "edit" else 1
    batch = init_count if init_count > 1 else body.batch_size
    return body.num_images if body.num_images is not None and body.num_images >= 1 else batch * body.n_iter


def denoise_of(body: Txt2Img | Img2Img) -> float:
    strength = body.image_strength if isinstance(body, Img2Img) else None
    return body.denoising_strength if strength is None else strength


def _lora_files(body: Generation) -> Iterator[Lora]:
    """LoRAs by file: names, or paths inside the LoRA folders, which the library resolves.

    Source: MFLUX API documentation 2.0, `lora_files` and `lora_scales`; stable-diffusion.cpp's server, `lora`.
    """
    for i, file in enumerate(body.lora_files):
        yield Lora(name=file, scale=body.lora_scales[i] if i < len(body.lora_scales) else 1.0)
    for item in body.lora:
        yield Lora(name=item.path, scale=item.multiplier)


def _without_foreign_model(
    library: Library, body: Txt2Img | Img2Img
) -> tuple[Txt2Img | Img2Img, tuple[Adjustment, ...]]:
    """The body without an unknown checkpoint file in `model`, which A1111 ignores. A plain name stays."""
    if body.model is None or not body.model.lower().endswith(WEIGHTS) or known_name(library, without_hash(body.model)):
        return body, ()
    reason = "there is no such model here, and A1111 has no such field"
    adjustment = Adjustment(param="model", asked=clip(body.model), used=None, reason=reason)
    return body.model_copy(update={"model": None}), (adjustment,)


def named_model(library: Library, body: Generation) -> str | None:
    """The model that a body names; by the hash of its title where that name is not known."""
    title = next(iter(_titles_of(body)), None)
    return None if title is None else name_of(library, title)


def _within(steps: int | None, limits: Limits) -> int | None:
    """The steps, cut to the limit where A1111's slider allows that many."""
    return limits.max_steps if steps is not None and limits.max_steps < steps <= CLIENT_STEPS else steps


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
