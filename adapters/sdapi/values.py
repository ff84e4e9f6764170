"""Values of fields: conversions from the JSON that AUTOMATIC1111's clients send. Pure; knows no field by name.

Source: pydantic 1.10's coercions, which A1111 1.10.1 pins, and more where clients need it.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from gateway.jobs.resolve import SEED_MAX, SEED_MIN, Limits

NUMBER_CHARS = 40
MOST_PX = 1e9
GUIDANCE_MAX = Limits().max_guidance
TRUE = frozenset({"true", "1", "1.0", "yes", "on", "t", "y"})
FALSE = frozenset({"false", "0", "0.0", "no", "off", "f", "n"})
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


def to_float(value: object) -> float:
    """A finite number from a number, a boolean or a string that holds one."""
    if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= NUMBER_CHARS):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise PydanticCustomError("type_error.float", "value is not a valid float")


def to_int(value: object) -> int:
    """A whole number; fractions are cut off, as pydantic 1 did."""
    is_whole = isinstance(value, int) or (isinstance(value, str) and _WHOLE.fullmatch(value.strip()) is not None)
    try:
        number = int(value) if is_whole else int(to_float(value))  # type: ignore[call-overload]
    except PydanticCustomError:
        number = SEED_MAX + 1
    if not SEED_MIN <= number <= SEED_MAX:
        raise PydanticCustomError("type_error.integer", "value is not a valid integer")
    return number


def to_seed(value: object) -> int:
    """A seed as an integer; an empty string means a random one, -1."""
    return -1 if value == "" else to_int(value)


def to_bool(value: object) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in TRUE | FALSE:
        return value.strip().lower() in TRUE
    raise PydanticCustomError("type_error.bool", "value could not be parsed to a boolean")


def to_str(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise PydanticCustomError("type_error.str", "str type expected")


def to_text(value: object) -> str:
    """A string; a number is refused."""
    if isinstance(value, str):
        return value
    raise PydanticCustomError("type_error.str", "str type expected")


def within(least: float, most: float) -> AfterValidator:
    """A validator for a number between the two."""

    def checked(value: float) -> float:
        if least <= value <= most:
            return value
        raise PydanticCustomError("value_error.number", f"ensure this value is between {least:g} and {most:g}")

    return AfterValidator(checked)


def to_names(value: object) -> list[str]:
    """A list of strings; one string is a list of one, null entries are left out."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [to_str(item) for item in value if item is not None]
    raise PydanticCustomError("type_error.list", "value is not a valid list")


def to_floats(value: object) -> list[float]:
    """A list of numbers; one number is a list of one."""
    return [to_float(item) for item in value] if isinstance(value, list) else [to_float(value)]


def to_dict(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise PydanticCustomError("type_error.dict", "value is not a valid dict")


def times(px: int, factor: float) -> int:
    """A size in pixels times a factor, cut to 1e9: the product with 1e308 may be infinite."""
    return int(max(-MOST_PX, min(MOST_PX, px * factor)))


Int = Annotated[int, BeforeValidator(to_int)]
Seed = Annotated[int, BeforeValidator(to_seed)]
Float = Annotated[float, BeforeValidator(to_float)]
Bool = Annotated[bool, BeforeValidator(to_bool)]
Str = Annotated[str, BeforeValidator(to_str)]
Text = Annotated[str, BeforeValidator(to_text)]
Guidance = Annotated[Float, within(0, GUIDANCE_MAX)]
Share = Annotated[Float, within(0, 1)]
Names = Annotated[list[str], BeforeValidator(to_names)]
Floats = Annotated[list[float], BeforeValidator(to_floats)]
Object = Annotated[dict[str, Any], BeforeValidator(to_dict)]
Ignored = Any
"""A field that is echoed in `parameters` and never read."""
