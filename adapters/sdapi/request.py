"""What an A1111 body asks for, in the core's words, and what of it will not be done. Pure; knows no HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from adapters.sdapi.options import CONSTANTS
from adapters.sdapi.payloads import Generation, Img2Img, Txt2Img
from gateway.errors import InvalidRequest, NotFound
from gateway.request import Adjustment, GenerationRequest, Limits

SAMPLER = "Euler"
SCHEDULER = "Simple"
"""mflux spaces its flow-matching sigmas evenly before the shift: what A1111 and Forge call "Simple"."""
CLIENT_STEPS = 150
"""A1111's own slider ends here; up to this, too many steps are cut rather than refused."""
PREVIEWS = 2
"""At most, a picture: what /progress shows as `current_image`; A1111 shows one every 10 steps."""
RESIZE_MODES = ("stretch", "cover and crop", "fit and fill")

# Source: A1111 1.10.1 modules/extra_networks.py, re_extra_net
_TAG = re.compile(r"<(\w+):([^>]+)>")
_HASH = re.compile(r" \[[^\]]*\]$")
_NOTHING = ("", "none")


class InitImageNotFound(NotFound):
    code, message = "init_image_not_found", "Init image not found"


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
    init_image: str | None = None,
) -> Translated:
    """The canonical request; `checkpoint` is the model where the body names none.

    Raises: InvalidRequest naming the field, for what would give another picture than the one asked for.
    """
    refuse(asked)
    prompt, tags = split_tags(asked.prompt)
    loras = () if asked.disable_extra_networks else tags
    steps = asked.steps
    if steps is not None and limits.max_steps < steps <= CLIENT_STEPS:
        steps = limits.max_steps
    request = GenerationRequest(
        prompt=prompt,
        model=model_of(asked) or checkpoint,
        negative_prompt=asked.negative_prompt or None,
        width_px=asked.width,
        height_px=asked.height,
        steps=steps,
        guidance=_first(asked.guidance, asked.distilled_cfg_scale, asked.cfg_scale),
        seed=asked.seed,
        count=count_of(asked),
        init_image=init_image,
        denoise=denoise_of(asked) if init_image is not None else None,
        loras=(*loras, *asked.lora_files),
        previews=PREVIEWS if previews else 0,
    )
    return Translated(request, tuple(_dropped(asked, steps)))


def refuse(asked: Txt2Img | Img2Img) -> None:
    """Raises: InvalidRequest for what cannot be drawn here and must not be silently left out; InitImageNotFound."""
    if asked.script_name:
        raise InvalidRequest(f"Script '{_clip(asked.script_name)}' not found", param="script_name")
    for name in asked.alwayson_scripts:
        raise InvalidRequest(f"Script '{_clip(name)}' not found", param="alwayson_scripts")
    if (asked.refiner_checkpoint or "").lower() not in _NOTHING:
        raise InvalidRequest("There is no refiner here.", param="refiner_checkpoint")
    if asked.extra_images:
        raise InvalidRequest("Reference pictures are not supported yet.", param="extra_images")
    match asked:
        case Txt2Img(enable_hr=True):
            raise InvalidRequest("Hires fix is not supported yet; ask for the final size.", param="enable_hr")
        case Img2Img(mask=str(mask)) if mask:
            raise InvalidRequest("Inpainting with a mask is not supported yet.", param="mask")
        case Img2Img(init_images=[]):
            raise InitImageNotFound
        case Img2Img(init_images=[_, _, *_]):
            raise InvalidRequest("One picture at a time can be the start.", param="init_images")
        case Img2Img(resize_mode=mode) if mode not in range(len(RESIZE_MODES)):
            raise InvalidRequest("resize_mode must be 0 (stretch), 1 (crop) or 2 (fill).", param="resize_mode")
        case _:
            pass


def model_of(asked: Generation) -> str | None:
    """The model a body names, in the order: `model`, `sd_model_checkpoint`, `override_settings`."""
    override = asked.override_settings.get("sd_model_checkpoint")
    for name in (asked.model, asked.sd_model_checkpoint, override if isinstance(override, str) else None):
        if name:
            return without_hash(name)
    return None


def without_hash(title: str) -> str:
    """A checkpoint title without the ` [hash]` that A1111 puts behind it."""
    return _HASH.sub("", title)


def count_of(asked: Generation) -> int:
    """How many pictures. Raises: InvalidRequest."""
    for name in ("batch_size", "n_iter", "num_images"):
        value = getattr(asked, name)
        if value is not None and value < 1:
            raise InvalidRequest(f"{name} must be at least 1.", param=name)
    return asked.num_images or asked.batch_size * asked.n_iter


def denoise_of(asked: Txt2Img | Img2Img) -> float:
    strength = asked.image_strength if isinstance(asked, Img2Img) else None
    return asked.denoising_strength if strength is None else strength


def split_tags(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The prompt without `<kind:name:...>` tags, and the names of the LoRAs among them.

    Source: A1111 1.10.1: every such tag is removed, whatever its kind.
    """
    tags = [(match[1].lower(), match[2].split(":")[0].strip()) for match in _TAG.finditer(prompt)]
    return _TAG.sub("", prompt), tuple(name for kind, name in tags if kind in ("lora", "lyco"))


def field_of(asked: Generation, param: str) -> str:
    """The field by which this client asked for what the core calls `param`."""

    def sent(*names: str) -> str:
        return next((name for name in names if name in asked.model_fields_set), names[-1])

    match param:
        case "guidance":
            return sent("guidance", "distilled_cfg_scale", "cfg_scale")
        case "count":
            return sent("num_images", "n_iter", "batch_size")
        case "denoise":
            return sent("image_strength", "denoising_strength")
        case "loras":
            return sent("lora_files", "prompt")
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
        yield _drop("steps", asked.steps, steps, "this is the most a job may take")
    sampler = asked.sampler_name or asked.sampler_index
    if sampler not in ("", SAMPLER):
        yield _drop("sampler_name", _clip(sampler), SAMPLER, "the only sampler there is")
    if (asked.scheduler or "").lower() not in ("", "automatic", SCHEDULER.lower()):
        yield _drop("scheduler", _clip(asked.scheduler or ""), SCHEDULER, "the only schedule there is")
    for style in asked.styles[:8]:
        if style.lower() not in _NOTHING:
            yield _drop("styles", _clip(style), None, "there is no such style")
    if asked.subseed_strength:
        yield _drop("subseed_strength", asked.subseed_strength, 0, "variation seeds are not supported yet")
    for name in ("restore_faces", "tiling", "low_ram"):
        if getattr(asked, name):
            yield _drop(name, "true", None, "there is no such thing here")
    if asked.infotext:
        yield _drop("infotext", _clip(asked.infotext), None, "not read yet; send the fields themselves")
    yield from _ignored_settings(asked)


def _ignored_settings(asked: Generation) -> Iterator[Adjustment]:
    settings = asked.override_settings
    for name, value in list(settings.items())[:32]:
        if name == "sd_model_checkpoint" or value is None or value == CONSTANTS.get(name):
            continue
        shown = value if isinstance(value, int | float) else _clip(str(value))
        used = CONSTANTS.get(name)
        yield _drop(
            f"override_settings.{_clip(name)}",
            shown,
            used if isinstance(used, str | int | float) else None,
            "this setting has no effect here",
        )
    if not asked.override_settings_restore_afterwards and settings.get("sd_model_checkpoint"):
        yield _drop("override_settings_restore_afterwards", "false", "true", "POST /options changes the model for good")


def _drop(param: str, asked: str | int | float | None, used: str | int | float | None, reason: str) -> Adjustment:
    return Adjustment(param=param, asked=asked, used=used, reason=reason)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _clip(text: str) -> str:
    return text if len(text) <= 64 else text[:61] + "..."
