"""Values from untrusted JSON and texts, read within bounds; None for values of a wrong kind. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from gateway.clean_text import whole as cleaned

DrawingFields = Mapping[str, object]
"""Fields of a `Drawing` by name; None: missing."""

MAX_JSON_CHARS = 256 * 1024
MAX_LORAS = 16
_FLOAT_MOST = 2.0**64
_INT_CHARS = 20
"""Digits of a 64-bit number with its sign."""
_WHOLE = re.compile(r"[-+]?[0-9]{1,20}")
_NUMBER = re.compile(r"[-+]?[0-9]{0,19}(?:\.[0-9]{0,32})?(?:[eE][-+]?[0-9]{1,3})?")
_SIZE = re.compile(r"\s{0,8}\(?([0-9]{1,5})\s{0,8}[x×*,]\s{0,8}([0-9]{1,5})\)?\s{0,8}")
_WEIGHTS = (".safetensors", ".ckpt", ".gguf", ".pt", ".pth", ".sft", ".bin")


def json_object(text: str | None) -> dict[str, Any] | None:
    """The JSON object in a text; None for anything else, and for one nested too deep for Python's decoder.

    Programs write NaN (ComfyUI's `is_changed`) and duplicate keys: NaN becomes None, of equal keys the last counts.
    """
    if text is None or len(text) > MAX_JSON_CHARS or not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    try:
        value = json.loads(text.lstrip("\ufeff"), parse_int=_whole, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= _INT_CHARS else None


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """The value if it is a list, otherwise an empty one."""
    return value if isinstance(value, list) else []


def text(value: object) -> str | None:
    """A text that is not blank, stripped."""
    return (cleaned(value).strip() or None) if isinstance(value, str) else None


def whole(value: object) -> int | None:
    """A whole number, or a text of one."""
    match value:
        case bool():
            return None
        case int():
            return value
        case float() if abs(value) < _FLOAT_MOST and value == int(value):
            return int(value)
        case str() if _WHOLE.fullmatch(value.strip()):
            return int(value)
        case _:
            return None


def number(value: object) -> float | None:
    """A finite number, or a text of one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None


def size(value: object) -> tuple[int | None, int | None]:
    """Width and height from `512x768`, `512 × 768` or `(512, 768)`; otherwise None twice."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return (None, None) if match is None else (int(match[1]), int(match[2]))


def file_name(value: object) -> str | None:
    """Name of a model or LoRA: a file name without folder and weights suffix."""
    name = text(value)
    if name is None:
        return None
    name = name.replace("\\", "/").rpartition("/")[2]
    for ending in _WEIGHTS:
        if name.lower().endswith(ending):
            return name[: -len(ending)] or None
    return name or None


def loras(pairs: Iterable[tuple[object, object]]) -> tuple[dict[str, object], ...]:
    """Names and strengths as in `Drawing.loras`, without incomplete ones."""
    rows: list[dict[str, object]] = []
    for name, strength in pairs:
        stem, scale = file_name(name), number(strength)
        if stem is not None and scale is not None and len(rows) < MAX_LORAS:
            rows.append({"name": stem, "scale": scale})
    return tuple(rows)
