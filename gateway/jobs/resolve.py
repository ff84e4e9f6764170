"""From a generation request to a complete plan. No I/O; random seeds come from an argument."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Literal

from engine.catalog import ModelSpec
from engine.protocol import Control, Frozen, Generate, Lora, MaskContent, MemoryCheck, Paste, SecondPass, Tiles
from gateway.errors import InvalidRequest, clip
from gateway.jobs.limits import Limits as Limits
from gateway.jobs.resolve_tiles import TilesRequest, check_inputs, tiles_of

SEED_MIN, SEED_MAX = -(2**63), 2**64 - 1
"""The range of clients' random seeds of 63 and 64 bits, and of mlx.random.key; -1 means random."""
SIZE_STEP_PX = 16
"""The step of sizes of most models; rows of the catalogue may have another."""
LORA_SCALE_MAX = 4
CONTROL_STRENGTH_MAX = 2


class SecondPassRequest(Frozen):
    """A requested second pass; `steps` None: as many as in the first."""

    width_px: int
    height_px: int
    steps: int | None = None
    denoise: float = 0.75
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    prompt: str | None = None


class GenerationRequest(Frozen):
    """The canonical request for images. None means: not in the client's request."""

    prompt: str
    model: str | None = None
    negative_prompt: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    seeds: tuple[int, ...] = ()
    """One seed for each image, instead of `seed` and its successors."""
    count: int | None = None
    init_image: str | None = None
    further_init_images: tuple[str, ...] = ()
    denoise: float | None = None
    stretch_latents: bool = False
    second_pass: SecondPassRequest | None = None
    tiles: TilesRequest | None = None
    mask: str | None = None
    mask_content: MaskContent = "original"
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    control: Control | None = None
    subseed: int | None = None
    subseed_strength: float = 0.0
    loras: tuple[Lora, ...] = ()
    """LoRAs by names, aliases or paths of the library."""
    previews: int | None = None
    low_ram: bool | None = None
    """Whether to use less memory and more time; None: as in the settings."""
    memory: MemoryCheck = "check"

    def fingerprint(self) -> str:
        """The fingerprint of the request, equal for equal requests, which an Idempotency-Key is bound to."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


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


class Adjustment(Frozen):
    """An adjustment: one difference between the request and the result, for the client."""

    param: str
    asked: str | int | float | None
    used: str | int | float | None
    reason: str


class Resolution(Frozen):
    """A plan, and where it differs from the request."""

    plan: Generate
    adjustments: tuple[Adjustment, ...] = ()


Leniency = Literal["refuse", "drop"]
"""What happens to a parameter that the model does not support: refused natively, dropped for AUTOMATIC1111."""


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
) -> Resolution:
    """Decide every value and check every bound. `known_loras` are LoRAs of the library by the request's names.

    Raises: InvalidRequest naming the parameter.
    """
    if spec.task != "generate":
        raise InvalidRequest(f"{spec.name} enlarges pictures, it draws none. Use another model.", param="model")
    adjustments: list[Adjustment] = []

    def adjust(param: str, asked: str | int | float | None, used: str | int | float | None, reason: str) -> None:
        adjustments.append(Adjustment(param=param, asked=asked, used=used, reason=reason))

    limits = limits.of(spec)
    _check_prompts(request, limits)
    if request.negative_prompt and not spec.negative_prompt:
        adjust("negative_prompt", clip(request.negative_prompt), None, f"{spec.name} takes no negative prompt")
    loras = _loras(request.loras, known_loras or {}, spec, limits, leniency, adjust)

    width = _size("width", request.width_px, spec, limits, adjust)
    height = _size("height", request.height_px, spec, limits, adjust)
    limits.check_area(width, height)

    steps = _steps(request.steps, spec, limits, steps_as_sent, adjust)
    guidance = _guidance(request.guidance, spec, limits, adjust)
    tiles = None if request.tiles is None else tiles_of(request.tiles, (width, height), limits)
    count = request.count if request.count is not None else len(request.seeds) or 1
    if request.seeds and len(request.seeds) != count:
        raise InvalidRequest("There must be as many seeds as pictures.", param="seed")
    if not 1 <= count <= limits.max_count:
        raise InvalidRequest(f"The number of pictures must be between 1 and {limits.max_count}.", param="count")
    if tiles is None:
        _check_work(width * height, width * height * steps, count, limits, "steps")
    else:
        columns, rows = tiles.grid(width, height)
        drawn = columns * rows * width * height
        _check_work(tiles.width_px * tiles.height_px, drawn * steps, count, limits, "tiles")

    second_pass = None
    if request.second_pass is not None and (not spec.init_image or spec.needs_mask):
        _lacks(leniency, adjust, "second_pass", "a second pass", f"{spec.name} cannot draw over a whole picture")
    elif request.second_pass is not None:
        second_pass = _second_pass(request.second_pass, steps, spec, limits, steps_as_sent, adjust)
        pixels = second_pass.width_px * second_pass.height_px
        pixel_steps = width * height * steps + pixels * second_pass.steps
        _check_work(pixels, pixel_steps, count, limits, "second_pass")

    if tiles is not None:
        unfit = tuple(name for name in ("mask", "second_pass", "control") if getattr(request, name) is not None)
        check_inputs(spec, begins=request.init_image is not None, others=unfit)
    request = _with_usable_images(request, spec, leniency, adjust)
    denoise = 1.0
    if request.init_image is not None:
        denoise = (1.0 if spec.needs_mask else 0.75) if request.denoise is None else request.denoise
        if not 0.0 <= denoise <= 1.0:
            raise InvalidRequest("The denoising strength must be between 0 and 1.", param="denoise")

    seed = _seed("seed", request.seed, random_seed)
    seeds = tuple(_seed("seed", one, random_seed) for one in request.seeds)
    if not 0.0 <= request.subseed_strength <= 1.0:
        raise InvalidRequest("The subseed strength must be between 0 and 1.", param="subseed_strength")
    varied = request.subseed_strength > 0
    subseed = _seed("subseed", request.subseed, random_seed) if varied else 0

    plan = Generate(
        model=spec.name,
        prompt=request.prompt,
        width_px=width,
        height_px=height,
        steps=steps,
        guidance=guidance,
        negative_prompt=request.negative_prompt if spec.negative_prompt else None,
        seeds=seeds or ((seed,) * count if varied and tiles is None else _following(seed, count)),
        subseeds=_subseeds(subseed, count, tiles) if varied else (),
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
        low_ram=low_ram if request.low_ram is None else request.low_ram,
        memory=request.memory,
    )
    return Resolution(plan=plan, adjustments=tuple(adjustments))


_Adjust = Callable[[str, str | int | float | None, str | int | float | None, str], None]


def _check_prompts(request: GenerationRequest, limits: Limits) -> None:
    size = len(request.prompt.encode()) + len((request.negative_prompt or "").encode())
    if size > limits.max_prompt_bytes:
        raise InvalidRequest(f"The prompts must be at most {limits.max_prompt_bytes} bytes together.", param="prompt")


def _check_work(pixels: int, pixel_steps: int, count: int, limits: Limits, param: str) -> None:
    """Check the work for `count` images of `pixels` pixels in the end. Raises: InvalidRequest."""
    if pixels * count > limits.max_job_pixels:
        message = f"width x height x pictures must be at most {limits.max_job_pixels}; {pixels * count} were asked."
        raise InvalidRequest(message, param="count")
    if pixel_steps * count > limits.max_pixel_steps:
        asked = f"{pixel_steps * count} were asked"
        message = f"width x height x steps x pictures must be at most {limits.max_pixel_steps}; {asked}."
        raise InvalidRequest(message, param=param)


def _size(param: str, asked: int | None, spec: ModelSpec, limits: Limits, adjust: _Adjust) -> int:
    if asked is None:
        return spec.default_px
    limits.check_side(asked, param)
    used = asked // spec.step_px * spec.step_px
    if used != asked:
        adjust(param, asked, used, f"sizes are multiples of {spec.step_px}, rounded down")
    return used


def _steps(requested: int | None, spec: ModelSpec, limits: Limits, as_sent: bool, adjust: _Adjust) -> int:
    if requested is None:
        return spec.default_steps
    if not 1 <= requested <= limits.max_steps:
        raise InvalidRequest(f"steps must be between 1 and {limits.max_steps}.", param="steps")
    if requested < spec.min_steps:
        adjust("steps", requested, spec.min_steps, f"{spec.name} takes {spec.min_steps} steps at least")
        return spec.min_steps
    if spec.distilled and requested > spec.useful_max_steps and (spec.fixed_steps or not as_sent):
        adjust("steps", requested, spec.useful_max_steps, f"{spec.name} is distilled: more steps add nothing")
        return spec.useful_max_steps
    return requested


def _guidance(requested: float | None, spec: ModelSpec, limits: Limits, adjust: _Adjust) -> float:
    if requested is None:
        return spec.default_guidance
    if not 0.0 <= requested <= limits.max_guidance:
        raise InvalidRequest(f"guidance must be between 0 and {limits.max_guidance:g}.", param="guidance")
    if spec.distilled and requested != spec.default_guidance:
        adjust("guidance", requested, spec.default_guidance, f"{spec.name} is distilled: its guidance is fixed")
        return spec.default_guidance
    low, high = spec.guidance_range
    used = min(max(requested, low), high)
    if used != requested:
        adjust("guidance", requested, used, f"{spec.name} takes guidance from {low:g} to {high:g}")
    return used


def _loras(
    requested: tuple[Lora, ...],
    known: Mapping[str, KnownLora],
    spec: ModelSpec,
    limits: Limits,
    leniency: Leniency,
    adjust: _Adjust,
) -> tuple[Lora, ...]:
    if requested and not spec.lora:
        _lacks(leniency, adjust, "loras", clip(requested[0].name), f"{spec.name} takes no LoRAs")
        return ()
    missing = [lora for lora in requested if lora.name not in known]
    if missing and leniency == "refuse":
        raise InvalidRequest(f"LoRA {clip(missing[0].name)!r} is not in the library.", param="loras")
    for lora in missing[: limits.max_loras]:
        adjust("loras", clip(lora.name), None, "there is no such LoRA in the library")
    pairs = [(lora, known[lora.name]) for lora in requested if lora.name in known]
    if len(pairs) > limits.max_loras:
        raise InvalidRequest(f"At most {limits.max_loras} LoRAs can be used at once.", param="loras")
    if not all(-LORA_SCALE_MAX <= lora.scale <= LORA_SCALE_MAX for lora, _ in pairs):
        raise InvalidRequest(f"A LoRA's scale must be between -{LORA_SCALE_MAX} and {LORA_SCALE_MAX}.", param="loras")
    if trouble := next((entry.trouble for _, entry in pairs if entry.trouble), None):
        raise InvalidRequest(trouble, param="loras")
    for entry in {entry.name: entry for _, entry in pairs}.values():
        if entry.tensors_used is not None and entry.tensors_used < entry.tensors:
            reason = f"used {entry.tensors_used} of {entry.tensors} tensors: {entry.rest}"
            adjust("loras", clip(entry.name), clip(entry.name), reason)
    return tuple(Lora(name=entry.name, scale=lora.scale) for lora, entry in pairs)


def _with_usable_images(
    request: GenerationRequest, spec: ModelSpec, leniency: Leniency, adjust: _Adjust
) -> GenerationRequest:
    """The request with the images that the model can use, in the roles that it supports.

    Raises: InvalidRequest for a missing image, or one that cannot be left out.
    """
    update: dict[str, object] = {}
    if request.mask is not None and request.init_image is None:
        raise InvalidRequest("A mask needs a picture that it belongs to.", param="mask")
    if request.mask is not None and not spec.masks:
        _lacks(leniency, adjust, "mask", "a mask", f"{spec.name} cannot repaint a part of a picture")
        update |= {"mask": None, "paste": None}
    masked = request.mask is not None and spec.masks
    if spec.needs_mask and not masked:
        raise InvalidRequest(f"{spec.name} repaints a part of a picture: send one with a mask.", param="mask")
    references = _references(request.references, spec, leniency, adjust)
    if request.init_image is not None and not references and spec.needs_reference:
        references = (request.init_image,)
        if not masked:
            update |= {"init_image": None, "further_init_images": ()}
        elif request.denoise is None:
            update |= {"denoise": 1.0}
        adjust("init_image", "a start", "a reference", f"{spec.name} follows a picture rather than begin from it")
    elif request.init_image is not None and not spec.init_image:
        _lacks(leniency, adjust, "init_image", "a start", f"{spec.name} cannot begin from a picture")
        update |= {"init_image": None, "further_init_images": ()}
    if spec.needs_reference and not references:
        raise InvalidRequest(f"{spec.name} follows a picture: send a reference.", param="references")
    control = _control(request.control, spec, leniency, adjust)
    return request.model_copy(update={**update, "references": references, "control": control})


def _references(requested: tuple[str, ...], spec: ModelSpec, leniency: Leniency, adjust: _Adjust) -> tuple[str, ...]:
    if len(requested) <= spec.max_references:
        return requested
    if spec.max_references:
        raise InvalidRequest(f"{spec.name} takes at most {spec.max_references} reference pictures.", param="references")
    _lacks(leniency, adjust, "references", len(requested), f"{spec.name} cannot edit pictures")
    return ()


def _control(requested: Control | None, spec: ModelSpec, leniency: Leniency, adjust: _Adjust) -> Control | None:
    if spec.control is None:
        if requested is not None:
            _lacks(leniency, adjust, "control", requested.kind, f"{spec.name} has no ControlNet")
        return None
    if requested is None:
        what = "outlines" if spec.control == "canny" else "depth map"
        raise InvalidRequest(f"{spec.name} follows the {what} of a picture: send a control picture.", param="control")
    if requested.kind != spec.control:
        raise InvalidRequest(f"{spec.name} follows {spec.control}, not {requested.kind}.", param="control")
    if not 0.0 <= requested.strength <= CONTROL_STRENGTH_MAX:
        raise InvalidRequest(f"A control's strength must be between 0 and {CONTROL_STRENGTH_MAX}.", param="control")
    return requested


def _lacks(leniency: Leniency, adjust: _Adjust, param: str, requested: str | int, reason: str) -> None:
    """Refuse a parameter that the model does not support, or drop it with an adjustment."""
    if leniency == "refuse":
        raise InvalidRequest(f"{reason}.", param=param)
    adjust(param, requested, None, reason)


def _second_pass(
    requested: SecondPassRequest, first_steps: int, spec: ModelSpec, limits: Limits, as_sent: bool, adjust: _Adjust
) -> SecondPass:
    def adjust_second_pass(
        _: str, value: str | int | float | None, used: str | int | float | None, reason: str
    ) -> None:
        adjust("second_pass", value, used, reason)

    sizes = []
    for px in (requested.width_px, requested.height_px):
        limits.check_side(px, "second_pass")
        sizes.append(px // spec.step_px * spec.step_px)
    limits.check_area(sizes[0], sizes[1], "second_pass")
    if (requested.width_px, requested.height_px) != tuple(sizes):
        size, used = f"{requested.width_px}x{requested.height_px}", f"{sizes[0]}x{sizes[1]}"
        adjust("second_pass", size, used, f"sizes are multiples of {spec.step_px}, rounded down")
    if not 0.0 <= requested.denoise <= 1.0:
        raise InvalidRequest("The denoising strength must be between 0 and 1.", param="denoise")
    return SecondPass(
        width_px=sizes[0],
        height_px=sizes[1],
        steps=first_steps
        if requested.steps is None
        else _steps(requested.steps, spec, limits, as_sent, adjust_second_pass),
        denoise=requested.denoise,
        enlarge=requested.enlarge,
        prompt=requested.prompt,
    )


def _seed(param: str, requested: int | None, random_seed: Callable[[], int]) -> int:
    seed = random_seed() if requested is None or requested == -1 else requested
    if not SEED_MIN <= seed <= SEED_MAX:
        raise InvalidRequest(f"{param} must be between {SEED_MIN} and {SEED_MAX}.", param=param)
    return seed


def _subseeds(subseed: int, count: int, tiles: Tiles | None) -> tuple[int, ...]:
    """One subseed for each image; the tiles of every image begin at the first one, as in A1111."""
    return _following(subseed, count) if tiles is None else (subseed,) * count


def _following(seed: int, count: int) -> tuple[int, ...]:
    return tuple(seed + i if seed + i <= SEED_MAX else seed + i - SEED_MAX - 1 for i in range(count))
