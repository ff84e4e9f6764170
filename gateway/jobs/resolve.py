"""From a generation request to a complete plan. No I/O; random seeds come from an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.catalog import ModelSpec
from engine.protocol import Frozen, Generate, Lora, Sampling
from gateway.errors import InvalidRequest, clip
from gateway.jobs.adjustments import Adjust, lacks
from gateway.jobs.adjustments import Adjustment as Adjustment
from gateway.jobs.adjustments import Leniency as Leniency
from gateway.jobs.limits import Limits as Limits
from gateway.jobs.request import GenerationRequest as GenerationRequest
from gateway.jobs.request import SecondPassRequest as SecondPassRequest
from gateway.jobs.resolve_images import with_usable_images
from gateway.jobs.resolve_sampling import (
    SamplingNeeds,
    adjust_unsampled,
    check_schedule_steps,
    is_sampled,
    resolve_sampling,
)
from gateway.jobs.resolve_second_pass import check_work, second_pass_of
from gateway.jobs.resolve_tiles import check_inputs, tiles_of
from gateway.jobs.resolve_values import SEED_MAX as SEED_MAX
from gateway.jobs.resolve_values import SEED_MIN as SEED_MIN
from gateway.jobs.resolve_values import following, guidance_of, seed_of, size_of, steps_of, subseeds_of
from gateway.jobs.sampling_files import SamplingFiles

SIZE_STEP_PX = 16
"""The step of sizes of most models; rows of the catalogue may have another."""
LORA_SCALE_MAX = 4
NO_FILES = SamplingFiles()


class KnownLora(Frozen):
    """A LoRA of the library that a request names."""

    name: str
    """Its name in the library."""
    trouble: str | None = None
    """Why the LoRA cannot be used with this model: one sentence."""
    tensors_used: int | None = None
    """How many of its `tensors` apply to this model; None where its file is not on disk."""
    tensors: int = 0
    rest: str | None = None
    """What the other tensors are: the end of a sentence."""


class Resolution(Frozen):
    """A plan, and where it differs from the request."""

    plan: Generate
    adjustments: tuple[Adjustment, ...] = ()


def resolve(
    request: GenerationRequest,
    spec: ModelSpec,
    limits: Limits,
    *,
    random_seed: Callable[[], int],
    default_quantize: int | None = None,
    steps_as_sent: bool = False,
    low_ram: bool = False,
    leniency: Leniency = "refuse",
    known_loras: Mapping[str, KnownLora] | None = None,
    files: SamplingFiles = NO_FILES,
) -> Resolution:
    """Decide every value and check every bound. `known_loras` are LoRAs of the library by the request's names, `files`
    the other files that its sampling means.

    Raises: InvalidRequest naming the parameter.
    """
    if spec.task != "generate":
        raise InvalidRequest(f"{spec.name} enlarges pictures, it draws none. Use another model.", param="model")
    adjustments: list[Adjustment] = []

    def adjust(param: str, asked: str | int | float | None, used: str | int | float | None, reason: str) -> None:
        adjustments.append(Adjustment(param=param, asked=asked, used=used, reason=reason))

    limits = limits.of(spec)
    _check_prompts(request, limits)
    takes_negative = spec.negative_prompt or is_sampled(spec)
    if request.negative_prompt and not takes_negative:
        adjust("negative_prompt", clip(request.negative_prompt), None, f"{spec.name} takes no negative prompt")
    loras = _loras(request.loras, known_loras or {}, spec, limits, leniency, adjust)

    width = size_of("width", request.width_px, spec, limits, adjust)
    height = size_of("height", request.height_px, spec, limits, adjust)
    limits.check_area(width, height)

    steps = steps_of(request.steps, spec, limits, steps_as_sent, adjust)
    guidance = guidance_of(request.guidance, spec, limits, adjust)
    tiles = None if request.tiles is None else tiles_of(request.tiles, (width, height), limits)
    count = request.count if request.count is not None else len(request.seeds) or 1
    if request.seeds and len(request.seeds) != count:
        raise InvalidRequest("There must be as many seeds as pictures.", param="seed")
    if not 1 <= count <= limits.max_count:
        raise InvalidRequest(f"The number of pictures must be between 1 and {limits.max_count}.", param="count")
    if tiles is None:
        check_work(width * height, width * height * steps, count, limits, "steps")
    else:
        columns, rows = tiles.grid(width, height)
        drawn = columns * rows * width * height
        check_work(tiles.width_px * tiles.height_px, drawn * steps, count, limits, "tiles")

    sampling: Sampling | None = None
    if is_sampled(spec):
        needs = SamplingNeeds(_prompts(request), (width, height))
        sampling = resolve_sampling(request.sampling, needs, spec, files, leniency=leniency, adjust=adjust)
    elif request.sampling is not None:
        adjust_unsampled(request.sampling, spec, adjust)

    second_pass = None
    if request.second_pass is not None and (not spec.init_image or spec.needs_mask):
        lacks(leniency, adjust, "second_pass", "a second pass", f"{spec.name} cannot draw over a whole picture")
    elif request.second_pass is not None:
        second_pass = second_pass_of(request, steps, sampling, spec, limits, steps_as_sent, adjust)
        pixels = second_pass.width_px * second_pass.height_px
        pixel_steps = width * height * steps + pixels * second_pass.steps
        check_work(pixels, pixel_steps, count, limits, "second_pass")

    if tiles is not None:
        unfit = tuple(name for name in ("mask", "second_pass", "control") if getattr(request, name) is not None)
        check_inputs(spec, begins=request.init_image is not None, others=unfit)
    request = with_usable_images(request, spec, leniency, adjust)
    denoise = 1.0
    if request.init_image is not None:
        denoise = (1.0 if spec.needs_mask else 0.75) if request.denoise is None else request.denoise
        if not 0.0 <= denoise <= 1.0:
            raise InvalidRequest("The denoising strength must be between 0 and 1.", param="denoise")
        if sampling is not None and sampling.img2img_fix_steps:
            check_schedule_steps(steps, denoise, "denoise")

    seed = seed_of("seed", request.seed, random_seed)
    seeds = tuple(seed_of("seed", one, random_seed) for one in request.seeds)
    if not 0.0 <= request.subseed_strength <= 1.0:
        raise InvalidRequest("The subseed strength must be between 0 and 1.", param="subseed_strength")
    varied = request.subseed_strength > 0
    subseed = seed_of("subseed", request.subseed, random_seed) if varied else 0

    plan = Generate(
        model=spec.name,
        prompt=request.prompt,
        width_px=width,
        height_px=height,
        steps=steps,
        guidance=guidance,
        negative_prompt=request.negative_prompt if takes_negative else None,
        seeds=seeds or ((seed,) * count if varied and tiles is None else following(seed, count)),
        subseeds=subseeds_of(subseed, count, tiles) if varied else (),
        subseed_strength=request.subseed_strength,
        quantize=spec.quantize or default_quantize,
        init_image=request.init_image,
        further_init_images=request.further_init_images,
        denoise=denoise,
        stretch_latents=request.stretch_latents,
        second_pass=second_pass,
        tiles=tiles,
        mask=request.mask,
        mask_content=request.mask_content,
        paste=request.paste,
        references=request.references,
        control=request.control,
        loras=loras,
        previews=max(0, request.previews or 0),
        sampling=sampling,
        low_ram=low_ram if request.low_ram is None else request.low_ram,
        memory=request.memory,
    )
    return Resolution(plan=plan, adjustments=tuple(adjustments))


def _prompts(request: GenerationRequest) -> tuple[str, ...]:
    """All prompts of a request, negative ones too."""
    second = request.second_pass
    further = () if second is None else (second.prompt, second.negative_prompt)
    return tuple(prompt for prompt in (request.prompt, request.negative_prompt, *further) if prompt)


def _check_prompts(request: GenerationRequest, limits: Limits) -> None:
    if sum(len(prompt.encode()) for prompt in _prompts(request)) > limits.max_prompt_bytes:
        raise InvalidRequest(f"The prompts must be at most {limits.max_prompt_bytes} bytes together.", param="prompt")


def _loras(
    requested: tuple[Lora, ...],
    known: Mapping[str, KnownLora],
    spec: ModelSpec,
    limits: Limits,
    leniency: Leniency,
    adjust: Adjust,
) -> tuple[Lora, ...]:
    if requested and not spec.lora:
        lacks(leniency, adjust, "loras", clip(requested[0].name), f"{spec.name} takes no LoRAs")
        return ()
    missing = [lora for lora in requested if lora.name not in known]
    if missing and leniency == "refuse":
        raise InvalidRequest(f"LoRA {clip(missing[0].name)!r} is not in the library.", param="loras")
    for lora in missing[: limits.max_loras]:
        adjust("loras", clip(lora.name), None, "there is no such LoRA in the library")
    pairs = [(lora, known[lora.name]) for lora in requested if lora.name in known]
    if len(pairs) > limits.max_loras:
        raise InvalidRequest(f"At most {limits.max_loras} LoRAs can be used at once.", param="loras")
    scales = [scale for lora, _ in pairs for scale in (lora.scale, lora.text_encoder_scale) if scale is not None]
    if not all(-LORA_SCALE_MAX <= scale <= LORA_SCALE_MAX for scale in scales):
        raise InvalidRequest(f"A LoRA's scale must be between -{LORA_SCALE_MAX} and {LORA_SCALE_MAX}.", param="loras")
    if trouble := next((entry.trouble for _, entry in pairs if entry.trouble), None):
        raise InvalidRequest(trouble, param="loras")
    for entry in {entry.name: entry for _, entry in pairs}.values():
        if entry.tensors_used is not None and entry.tensors_used < entry.tensors:
            reason = f"used {entry.tensors_used} of {entry.tensors} tensors: {entry.rest}"
            adjust("loras", clip(entry.name), clip(entry.name), reason)
    return tuple(
        Lora(
            name=entry.name, scale=lora.scale, text_encoder_scale=lora.text_encoder_scale if is_sampled(spec) else None
        )
        for lora, entry in pairs
    )
