"""What an A1111 body asks for, in the core's words, and what of it will not be done. Pure; knows no HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from reprlib import repr as brief
from typing import Literal

from adapters.sdapi.lenient import times
from adapters.sdapi.lists import STAND_IN, stands_in_for
from adapters.sdapi.options import CONSTANTS, accepted
from adapters.sdapi.payloads import Generation, Img2Img, Txt2Img
from adapters.sdapi.refusals import InitImageNotFound, no_such_upscaler
from adapters.sdapi.tags import split_tags, without_hash
from engine.protocol import Lora, MaskContent, MemoryCheck, Paste
from gateway.errors import InvalidRequest, clip
from gateway.images.infotext import SAMPLER as SAMPLER
from gateway.images.infotext import SCHEDULER as SCHEDULER
from gateway.jobs.resolve import Adjustment, GenerationRequest, Limits, SecondPassRequest
from gateway.jobs.resolve_tiles import TilesRequest

CLIENT_STEPS = 150
"""A1111's own slider ends here; up to this, too many steps are cut rather than refused."""
PREVIEWS = 2
"""At most, a picture: what /progress shows as `current_image`; A1111 shows one every 10 steps."""
RESIZE_MODES = (0, 1, 2, 3)
GUIDANCE_FIELDS = ("guidance", "distilled_cfg_scale", "distilled_guidance", "cfg_scale")
"""The first one given counts."""
HR_UPSCALER = "Latent"
HR_UPSCALERS: Mapping[str, Literal["lanczos", "nearest"]] = {
    "None": "lanczos",
    "Lanczos": "lanczos",
    "Nearest": "nearest",
}
"""A1111 resizes with Lanczos where the upscaler is None. Latent ones, its default, and models become Lanczos, too."""
SCRIPTS = frozenset(
    {"comments", "controlnet", "extra options", "hypertile", "refiner", "sampler", "seed", "soft inpainting"}
)
"""Always-on scripts that are known: A1111's own and ControlNet. Titles are found without regard to case."""
SD_UPSCALE = "sd upscale"
"""The one selectable script there is, of img2img. Source: A1111 1.10.1 scripts/sd_upscale.py."""
MEMORY = "memory"
"""A setting of ours."""
SAME = ("", "none", "use same sampler", "use same scheduler", "use same checkpoint")

_NOTHING = ("", "none")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The pictures of a request by the names under which they are stored, and what of them was left out."""

    init_images: tuple[str, ...] = ()
    mask: str | None = None
    mask_content: MaskContent = "original"
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    denoise: float | None = None
    """Where the way of drawing decides it."""
    stretch_latents: bool = False
    overlay: bytes | None = None
    """The mask as a PNG, where it is asked back."""
    tiles: TilesRequest | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    """What the infotext says of a script."""
    dropped: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class Translated:
    """The request, and what was asked for here that the core never hears of."""

    request: GenerationRequest
    adjustments: tuple[Adjustment, ...]


def to_request(
    asked: Txt2Img | Img2Img,
    *,
    checkpoint: str | None,
    limits: Limits,
    previews: bool = True,
    inputs: Inputs | None = None,
) -> Translated:
    """The canonical request; `checkpoint` is the model where the body names none.

    Raises: InvalidRequest naming the field, for what would give another picture than the one asked for; AsA1111.
    """
    refuse(asked)
    inputs = inputs or Inputs()
    prompt, tags = split_tags(asked.prompt)
    loras = (*(() if asked.disable_extra_networks else tags), *_lora_files(asked))
    width, height = first_size(asked)
    steps = _within(asked.steps, limits)
    denoise = None
    if inputs.init_images:
        denoise = denoise_of(asked) if inputs.denoise is None else inputs.denoise
    request = GenerationRequest(
        prompt=prompt,
        model=model_of(asked) or checkpoint,
        negative_prompt=asked.negative_prompt or None,
        width_px=width,
        height_px=height,
        steps=steps,
        guidance=_first(*(getattr(asked, name) for name in GUIDANCE_FIELDS)),
        seed=asked.seed,
        count=count_of(asked),
        init_image=inputs.init_images[0] if inputs.init_images else None,
        further_init_images=inputs.init_images[1:],
        denoise=denoise,
        stretch_latents=inputs.stretch_latents,
        low_ram=True if asked.low_ram else None,
        memory=memory_of(asked),
        second_pass=second_pass_of(asked, limits),
        tiles=inputs.tiles,
        mask=inputs.mask,
        mask_content=inputs.mask_content,
        paste=inputs.paste,
        references=inputs.references,
        subseed=asked.subseed,
        subseed_strength=asked.subseed_strength,
        loras=loras,
        previews=PREVIEWS if previews else 0,
    )
    return Translated(request, (*inputs.dropped, *_dropped(asked, steps)))


def refuse(asked: Txt2Img | Img2Img) -> None:
    """Raises: InvalidRequest for what cannot be drawn here and must not be silently left out; InitImageNotFound."""
    if asked.script_name and not is_sd_upscale(asked):
        raise InvalidRequest(f"Script '{clip(asked.script_name)}' not found", param="script_name")
    for name in asked.alwayson_scripts:
        if name.lower() == SD_UPSCALE:
            message = "Cannot have a selectable script in the always on scripts params"
            raise InvalidRequest(message, param="alwayson_scripts")
        if name.lower() not in SCRIPTS:
            raise InvalidRequest(f"Script '{clip(name)}' not found", param="alwayson_scripts")
    if (asked.refiner_checkpoint or "").lower() not in _NOTHING:
        raise InvalidRequest("There is no refiner here.", param="refiner_checkpoint")
    match asked:
        case Img2Img(init_images=[]):
            raise InitImageNotFound
        case Img2Img(resize_mode=mode) if mode not in RESIZE_MODES:
            raise InvalidRequest("resize_mode must be 0 (stretch), 1 (crop), 2 (fill) or 3.", param="resize_mode")
        case _:
            pass


def is_sd_upscale(asked: Txt2Img | Img2Img) -> bool:
    """Whether the selectable script is asked for that is here. Source: A1111 1.10.1: titles without regard to case."""
    return isinstance(asked, Img2Img) and (asked.script_name or "").lower() == SD_UPSCALE


def first_size(asked: Txt2Img | Img2Img) -> tuple[int, int]:
    """Width and height of the first pass. Source: A1111's old hires fix had them in `firstphase_*`."""
    if isinstance(asked, Txt2Img) and asked.enable_hr and asked.firstphase_width > 0 and asked.firstphase_height > 0:
        return asked.firstphase_width, asked.firstphase_height
    return asked.width, asked.height


def second_pass_of(asked: Txt2Img | Img2Img, limits: Limits) -> SecondPassRequest | None:
    """Hires fix. Raises: AsA1111 for an upscaler that is not there."""
    if not isinstance(asked, Txt2Img) or not asked.enable_hr:
        return None
    upscaler = asked.hr_upscaler or HR_UPSCALER
    if upscaler not in HR_UPSCALERS and not stands_in_for(upscaler):
        raise no_such_upscaler(upscaler)
    width, height = second_size(asked)
    return SecondPassRequest(
        width_px=width,
        height_px=height,
        steps=_within(asked.hr_second_pass_steps or None, limits),
        denoise=asked.denoising_strength,
        enlarge=HR_UPSCALERS.get(upscaler, "lanczos"),
        prompt=split_tags(asked.hr_prompt)[0] or None,
    )


def second_size(asked: Txt2Img) -> tuple[int, int]:
    """Width and height of the result: by a factor, or from one or two sides.

    Source: A1111 1.10.1 StableDiffusionProcessingTxt2Img.calculate_target_resolution.
    """
    width, height = first_size(asked)
    if (width, height) != (asked.width, asked.height):
        return asked.width, asked.height
    match asked.hr_resize_x, asked.hr_resize_y:
        case 0, 0:
            return times(width, asked.hr_scale), times(height, asked.hr_scale)
        case x, 0:
            return x, x * height // max(1, width)
        case 0, y:
            return y * width // max(1, height), y
        case both:
            return both


def model_of(asked: Generation) -> str | None:
    """The model a body names, in the order: `model`, `sd_model_checkpoint`, `override_settings`."""
    override = asked.override_settings.get("sd_model_checkpoint")
    for name in (asked.model, asked.sd_model_checkpoint, override if isinstance(override, str) else None):
        if name:
            return without_hash(name)
    return None


def memory_of(asked: Generation) -> MemoryCheck:
    """`memory` of the body, else of `override_settings`, which is all that some clients let their users add to."""
    said = asked.memory if asked.memory is not None else asked.override_settings.get(MEMORY)
    return "try" if said == "try" else "check"


def count_of(asked: Generation) -> int:
    """How many pictures. Raises: InvalidRequest."""
    for name in ("batch_size", "n_iter"):
        if getattr(asked, name) < 1:
            raise InvalidRequest(f"{name} must be at least 1.", param=name)
    if isinstance(asked, Img2Img) and is_sd_upscale(asked):
        return asked.num_images if asked.num_images is not None and asked.num_images >= 1 else asked.n_iter
    starts = len(asked.init_images) if isinstance(asked, Img2Img) and asked.mode != "edit" else 1
    batch = starts if starts > 1 else asked.batch_size
    return asked.num_images if asked.num_images is not None and asked.num_images >= 1 else batch * asked.n_iter


def denoise_of(asked: Txt2Img | Img2Img) -> float:
    strength = asked.image_strength if isinstance(asked, Img2Img) else None
    return asked.denoising_strength if strength is None else strength


def _lora_files(asked: Generation) -> Iterator[Lora]:
    """Names, or paths inside the LoRA folders: the library knows them.

    Source: MFLUX API documentation 2.0, `lora_files` and `lora_scales`; stable-diffusion.cpp's server, `lora`.
    """
    for i, file in enumerate(asked.lora_files):
        yield Lora(name=file, scale=asked.lora_scales[i] if i < len(asked.lora_scales) else 1.0)
    for item in asked.lora:
        yield Lora(name=item.path, scale=item.multiplier)


def field_of(asked: Generation, param: str) -> str:
    """The field by which this client asked for what the core calls `param`."""

    def sent(*names: str) -> str:
        return next((name for name in names if name in asked.model_fields_set), names[-1])

    match param:
        case "guidance":
            return sent(*GUIDANCE_FIELDS)
        case "count":
            return sent("num_images", "n_iter", "batch_size")
        case "denoise":
            return sent("image_strength", "denoising_strength")
        case "loras":
            return sent("lora_files", "lora", "prompt")
        case "second_pass":
            return sent("hr_resize_x", "hr_resize_y", "hr_second_pass_steps", "hr_scale")
        case "tiles":
            return sent("script_args", "script_name")
        case "second_pass.prompt":
            return "hr_prompt"
        case "control":
            return "alwayson_scripts"
        case "init_image":
            return "init_images"
        case "references":
            return sent("extra_images", "init_images")
        case "model":
            return sent("model", "sd_model_checkpoint", "override_settings")
        case _:
            return param


def adjustments_of(asked: Generation, ours: tuple[Adjustment, ...], cores: tuple[Adjustment, ...]) -> list[Adjustment]:
    """All that was not done as asked, under the client's own field names and against what it really sent."""
    told: list[Adjustment] = []
    for item in cores:
        update: dict[str, object] = {"param": field_of(asked, item.param)}
        if item.param == "steps":
            update["asked"] = asked.steps
        told.append(item.model_copy(update=update))
    known = {item.param for item in told}
    return [*(item for item in ours if item.param != "steps" or "steps" not in known), *told]


def _dropped(asked: Txt2Img | Img2Img, steps: int | None) -> Iterator[Adjustment]:
    if steps != asked.steps:
        yield dropped("steps", asked.steps, steps, "this is the most a job may take")
    sampler = asked.sampler_name or asked.sampler_index
    if sampler not in ("", SAMPLER):
        yield dropped("sampler_name", clip(sampler), SAMPLER, "the only sampler there is")
    if (asked.scheduler or "").lower() not in ("", "automatic", SCHEDULER.lower()):
        yield dropped("scheduler", clip(asked.scheduler or ""), SCHEDULER, "the only schedule there is")
    for name in asked.untaken:
        yield dropped(name, None, None, "A1111 has no such field, and what it holds means nothing here")
    for name in asked.unknown_pictures[:32]:
        yield dropped(clip(name), None, None, "nothing here reads a picture in this field: it was left out")
    if asked.num_images is not None and asked.num_images < 1:
        yield dropped("num_images", asked.num_images, None, "there must be at least one picture")
    for name in ("restore_faces", "tiling"):
        if getattr(asked, name):
            yield dropped(name, "true", None, "there is no such thing here")
    if isinstance(asked, Txt2Img) and asked.enable_hr:
        yield from _dropped_of_hires(asked)
    if isinstance(asked, Img2Img) and asked.mask and not asked.mask_round:
        yield dropped("mask_round", "false", "true", "latents are repainted or kept, nothing between")
    yield from _ignored_settings(asked)


def _dropped_of_hires(asked: Txt2Img) -> Iterator[Adjustment]:
    upscaler = asked.hr_upscaler or ""
    if upscaler not in HR_UPSCALERS and stands_in_for(upscaler):
        is_latent = upscaler.lower().startswith("latent")
        reason = "pictures are enlarged, not latents" if is_latent else "that model is not here"
        yield dropped("hr_upscaler", clip(upscaler), STAND_IN, reason)
    if asked.hr_negative_prompt:
        yield dropped("hr_negative_prompt", clip(asked.hr_negative_prompt), None, "these models take none")
    for name, used in (("hr_checkpoint_name", None), ("hr_sampler_name", SAMPLER), ("hr_scheduler", SCHEDULER)):
        said = getattr(asked, name) or ""
        if said.lower() not in (*SAME, "automatic") and said != used:
            yield dropped(name, clip(said), used, "both passes are drawn alike")
    if split_tags(asked.hr_prompt)[1]:
        yield dropped("hr_prompt", "LoRA tags", None, "both passes are drawn with the LoRAs of the prompt")


def _ignored_settings(asked: Generation) -> Iterator[Adjustment]:
    settings = asked.override_settings
    can_be_set = accepted(settings)
    for name, value in list(settings.items())[:32]:
        if name == "sd_model_checkpoint" or value is None or value == CONSTANTS.get(name) or name in can_be_set:
            continue
        if name == MEMORY and value in ("check", "try"):
            continue
        shown = value if isinstance(value, int | float) else clip(value if isinstance(value, str) else brief(value))
        used = CONSTANTS.get(name)
        yield dropped(
            f"override_settings.{clip(name)}",
            shown,
            used if isinstance(used, str | int | float) else None,
            "this setting has no effect here",
        )


def dropped(param: str, asked: str | int | float | None, used: str | int | float | None, reason: str) -> Adjustment:
    return Adjustment(param=param, asked=asked, used=used, reason=reason)


def _within(steps: int | None, limits: Limits) -> int | None:
    """Too many steps, as far as A1111's slider goes, are cut to the limit."""
    return limits.max_steps if steps is not None and limits.max_steps < steps <= CLIENT_STEPS else steps


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
