"""The ControlNet unit of a request, in `alwayson_scripts`, and the lists of AUTOMATIC1111's ControlNet extension.

Source: Mikubill/sd-webui-controlnet, wiki "API", scripts/api.py and internal_controlnet/external_code.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi.prompt_tags import without_hash
from adapters.sdapi.request_schemas import Img2Img, Payload, Txt2Img
from adapters.sdapi.resize import on_background, resize, size_of, step_of
from adapters.sdapi.response_schemas import ControlModels, ControlModules, ControlSettings, ControlTypes, ControlVersion
from adapters.sdapi.values import Bool, Float, Ignored, Str
from adapters.shared.body import names_of
from adapters.shared.context import core_of
from engine.catalog import ModelSpec
from engine.protocol import Control
from gateway.context import Core
from gateway.errors import InvalidRequest, clip
from gateway.http.unknown_images import unknown_images
from gateway.images.codec import base64_image, check_image, opened, to_png
from gateway.jobs.resolve import Adjustment
from gateway.round_robin import ANYBODY, Share

API_VERSION = 2
SCRIPT = "controlnet"
PARAM = "alwayson_scripts"
READY, OUTLINES = "none", "canny"
MODULES = (READY, OUTLINES)
"""`none` takes a finished map of outlines or depths; `canny` makes a map of outlines from an image."""
MOST_UNITS = 1
RESIZE_MODES = {
    **dict.fromkeys(("just resize", "0", "3"), 0),
    **dict.fromkeys(("crop and resize", "inner fit (scale to fit)", "scale to fit (inner fit)", "1"), 1),
    **dict.fromkeys(("resize and fill", "outer fit (shrink to fit)", "envelope (outer fit)", "2"), 2),
}
BALANCED = ("balanced", "0")
THRESHOLDS = {"threshold_a": 100.0, "threshold_b": 200.0}
"""The thresholds of the outlines, which are fixed; the extension sends 64 or -1 for "not set"."""


class Unit(Payload):
    """One unit; what only tunes other preprocessors is nothing."""

    enabled: Bool = True
    module: Str = READY
    model: Str = "None"
    weight: Float = 1.0
    image: Ignored = None
    input_image: Ignored = None
    mask: Ignored = None
    mask_image: Ignored = None
    effective_region_mask: Ignored = None
    resize_mode: Str = "1"
    threshold_a: Float = -1.0
    threshold_b: Float = -1.0
    guidance: Float = 1.0
    guidance_start: Float = 0.0
    guidance_end: Float = 1.0
    control_mode: Str = "0"


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """The model with a ControlNet, its control image, and adjustments for what has no effect in the unit."""

    spec: ModelSpec
    control: Control
    adjustments: tuple[Adjustment, ...]


def unit_of(scripts: dict[str, Any]) -> Unit | None:
    """The one enabled unit, or None. Raises: InvalidRequest."""
    script = next((value for name, value in scripts.items() if name.lower() == SCRIPT), None)
    if script is None:
        return None
    args = script.get("args", []) if isinstance(script, dict) else None
    if not isinstance(args, list) or not all(item is None or isinstance(item, dict | bool) for item in args):
        raise InvalidRequest("ControlNet takes a list of units under args.", param=PARAM)
    if unknown_images(script, {"args"}):
        raise InvalidRequest("ControlNet takes a list of units under args.", param=PARAM)
    items = [item for item in args if isinstance(item, dict)]
    try:
        units = [Unit.model_validate(item) for item in items]
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InvalidRequest(f"The ControlNet unit's {place} is not what it should be.", param=PARAM) from None
    enabled = [item for unit, item in zip(units, items, strict=True) if unit.enabled]
    for name in (name for item in enabled for name in unknown_images(item, names_of(Unit))):
        raise InvalidRequest(f"A ControlNet unit has no field '{clip(name)}' for a picture here.", param=PARAM)
    units = [unit for unit in units if unit.enabled]
    if len(units) > MOST_UNITS:
        raise InvalidRequest("One ControlNet unit a picture.", param=PARAM)
    return units[0] if units else None


async def follow(core: Core, body: Txt2Img | Img2Img, spec: ModelSpec, share: Share = ANYBODY) -> ControlRequest | None:
    """The ControlNet of a request, with its image stored; `spec` is the checkpoint. None where no unit is enabled.

    Raises: InvalidRequest, ModelNotFound.
    """
    unit = unit_of(body.alwayson_scripts)
    if unit is None:
        return None
    module = unit.module.lower()
    if module not in MODULES:
        message = f"The preprocessors are {' and '.join(MODULES)}: send a depth map as it is, with module none."
        raise InvalidRequest(message, param=PARAM)
    model = model_for(core.library.specs, spec, _model_of(core, unit.model), "canny" if module == OUTLINES else None)
    if model is None or model.control is None:
        message = f"There is no ControlNet for {spec.name} that does this. /controlnet/model_list has all there are."
        raise InvalidRequest(message, param=PARAM)
    if module == OUTLINES and model.control != "canny":
        raise InvalidRequest(f"{model.name} follows {model.control}, not outlines.", param=PARAM)
    text = _image_of(unit) or next(iter(body.init_images if isinstance(body, Img2Img) else ()), None)
    if text is None:
        raise InvalidRequest("The ControlNet unit has no picture.", param=PARAM)
    mode = RESIZE_MODES.get(unit.resize_mode.strip().lower())
    if mode is None:
        raise InvalidRequest("The ControlNet unit's resize_mode must be 0, 1 or 2.", param=PARAM)
    data = await core.files.read(share, base64_image, text, PARAM)
    image = await check_image(data, core.decoder, PARAM, share)
    size = size_of(*body.first_size, core.settings.generation.limits.of(model), step_of(model))
    resized = await core.files.run(share, _resized, image.png, size, mode)
    control = Control(
        kind=model.control,
        image=await core.service.inputs.keep(image.unless_same(resized), share),
        is_map=module == READY,
        strength=unit.weight,
    )
    return ControlRequest(model, control, tuple(_ignored(unit, spec, model)))


def model_for(
    specs: Sequence[ModelSpec], checkpoint: ModelSpec, named: ModelSpec | None, kind: Literal["canny", "depth"] | None
) -> ModelSpec | None:
    """The model with the ControlNet of `named`, at the checkpoint's bits where there is such a model.

    Where none is named, it is the checkpoint itself or the first model of its weights that follows `kind`.
    """
    if named is None:
        if checkpoint.control is not None:
            return checkpoint
        same = (row for row in specs if row.repo is not None and row.repo == checkpoint.repo)
        named = next((row for row in same if row.control is not None and kind in (None, row.control)), None)
    if named is None or named.control is None or named.repo != checkpoint.repo:
        return None if named is None or named.control is None else named
    alike = (row for row in specs if (row.geometry, row.control) == (named.geometry, named.control))
    return next((row for row in alike if row.repo == named.repo and row.quantize == checkpoint.quantize), named)


def _model_of(core: Core, model: str) -> ModelSpec | None:
    return None if model.lower() in ("", "none") else core.library.find(without_hash(model))


def _image_of(unit: Unit) -> str | None:
    """The unit's image in base64, alone or in the extension's older object with a mask. Raises: InvalidRequest."""
    text = unit.image if unit.image is not None else unit.input_image
    if isinstance(text, dict):
        text = text.get("image")
    if text is not None and not isinstance(text, str):
        raise InvalidRequest("The ControlNet unit's image must be base64.", param=PARAM)
    return text or None


def _resized(png: bytes, size: tuple[int, int], mode: int) -> bytes:
    return to_png(resize(on_background(opened(png), "white"), size, mode))


def _ignored(unit: Unit, checkpoint: ModelSpec, used: ModelSpec) -> Iterator[Adjustment]:
    def adjustment(name: str, asked: str | float, used: str | float | None, reason: str) -> Adjustment:
        return Adjustment(param=f"ControlNet.{name}", asked=asked, used=used, reason=reason)

    if used.repo != checkpoint.repo:
        yield adjustment("model", checkpoint.name, used.name, "the ControlNet belongs to another checkpoint")
    if unit.guidance_start > 0 or min(unit.guidance_end, unit.guidance) < 1:
        yield adjustment(
            "guidance", f"{unit.guidance_start:g} to {unit.guidance_end:g}", "0 to 1", "it counts in every step"
        )
    if unit.control_mode.strip().lower() not in BALANCED:
        yield adjustment("control_mode", unit.control_mode[:40], "Balanced", "the only mode there is")
    for name, fixed in THRESHOLDS.items():
        value = getattr(unit, name)
        if unit.module.lower() == OUTLINES and value not in (-1.0, 64.0, fixed):
            yield adjustment(name, value, fixed, "outlines are found between 100 and 200")
    if any(mask is not None for mask in (unit.mask, unit.mask_image, unit.effective_region_mask)):
        yield adjustment("mask", "a mask", None, "it counts everywhere")


# ---- lists -----------------------------------------------------------------------------------------


def _models_on_disk(core: Core) -> list[ModelSpec]:
    """The models with a ControlNet that are on this machine. Reads the disk."""
    return [spec for spec in core.library.specs if spec.control is not None and core.library.on_disk(spec)]


async def model_list(request: Request) -> Response:
    """GET model_list: the models with a ControlNet that are on this machine."""
    specs = await asyncio.to_thread(_models_on_disk, core_of(request))
    return JSONResponse(ControlModels(model_list=[spec.name for spec in specs]))


async def module_list(_: Request) -> Response:
    """GET module_list: the preprocessors. Clients look each up in `module_detail` for what could be set of it."""
    detail = {name: {"model_free": False, "sliders": []} for name in MODULES}
    return JSONResponse(ControlModules(module_list=list(MODULES), module_detail=detail))


async def control_types(request: Request) -> Response:
    """GET control_types: preprocessors and models by what is followed, with those to pick first."""
    specs = await asyncio.to_thread(_models_on_disk, core_of(request))
    types = {}
    for name, modules in {"All": MODULES, "Canny": MODULES, "Depth": (READY,)}.items():
        models = [spec.name for spec in specs if name in ("All", str(spec.control).title())]
        types[name] = {
            "module_list": list(modules),
            "model_list": ["None", *models],
            "default_option": OUTLINES if name == "Canny" else READY,
            "default_model": "None" if name == "All" else next(iter(models), "None"),
        }
    return JSONResponse(ControlTypes(control_types=types))


async def settings(_: Request) -> Response:
    """GET settings: how many units a picture takes."""
    return JSONResponse(ControlSettings(control_net_unit_count=MOST_UNITS))


async def version(_: Request) -> Response:
    """GET version: of the extension's API."""
    return JSONResponse(ControlVersion(version=API_VERSION))
