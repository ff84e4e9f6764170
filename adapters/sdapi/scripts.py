"""The always-on scripts of A1111, which are in every payload that its page exports. Pure.

Source: A1111 1.10.1 modules/processing_scripts/{sampler,seed,refiner,comments}.py and extensions-builtin/{hypertile,
extra-options-section,soft-inpainting}/scripts: titles, which match without regard to case, and the order of `args`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from reprlib import repr as brief
from typing import Any, TypeVar

from adapters.sdapi.request_schemas import SD_UPSCALE, Generation
from adapters.shared.body import validated
from gateway.errors import InvalidRequest, clip
from gateway.jobs.resolve import Adjustment

PARAM = "alwayson_scripts"
SAMPLER = ("steps", "sampler_name", "scheduler")
SEED = ("seed", "", "subseed", "subseed_strength", "seed_resize_from_w", "seed_resize_from_h")
"""Fields by argument; the second argument is whether those behind it count."""

KNOWN = frozenset(
    {"comments", "controlnet", "extra options", "hypertile", "refiner", "sampler", "seed", "soft inpainting"}
)
"""Names of known always-on scripts: A1111's own and ControlNet."""

T = TypeVar("T", bound=Generation)


def check(body: Generation) -> None:
    """Refuse unknown scripts. Raises: InvalidRequest."""
    if body.script_name and not body.is_sd_upscale:
        raise InvalidRequest(f"Script '{clip(body.script_name)}' not found", param="script_name")
    for name in body.alwayson_scripts:
        if name.lower() == SD_UPSCALE:
            message = "Cannot have a selectable script in the always on scripts params"
            raise InvalidRequest(message, param=PARAM)
        if name.lower() not in KNOWN:
            raise InvalidRequest(f"Script '{clip(name)}' not found", param=PARAM)


def apply(body: T) -> tuple[T, tuple[Adjustment, ...]]:
    """The body with the fields that A1111's own scripts set, and adjustments for what they cannot do here.

    Comments, Extra options and Hypertile do not change the image.
    Raises: InvalidRequest for an argument that is not a valid value of its field.
    """
    update: dict[str, object] = {}
    adjustments: list[Adjustment] = []
    for title, script in body.alwayson_scripts.items():
        name, args = title.lower(), script.get("args") if isinstance(script, Mapping) else None
        if not isinstance(args, list) or not args:
            continue
        update.update(_validated(body, name, dict(_fields(name, args))))
        if name == "soft inpainting" and args[0] is True:
            adjustments.append(
                Adjustment(
                    param=f"{PARAM}.{title}",
                    asked=clip(brief(args)),
                    used=None,
                    reason="masks have hard edges or a blur here",
                )
            )
    check(body)
    return (body.model_copy(update=update) if update else body), tuple(adjustments)


def _fields(name: str, args: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The fields that a script sets, with their values; missing arguments leave the body unchanged."""
    match name:
        case "sampler":
            yield from zip(SAMPLER, args, strict=False)
        case "seed":
            counts = len(args) > 1 and args[1] is True
            yield from ((field, value) for field, value in zip(SEED, args, strict=False) if field == "seed" or counts)
        case "refiner" if args[0] is True:
            yield from zip(("refiner_checkpoint", "refiner_switch_at"), args[1:], strict=False)


def _validated(body: Generation, name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for field, value in fields.items():
        if not field or value is None:
            continue
        try:
            yield field, getattr(validated(type(body), {field: value}), field)
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}: {error.message}", param=PARAM) from None
