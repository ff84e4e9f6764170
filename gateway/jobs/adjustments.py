"""Adjustments: what of a request is done otherwise, for the client. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from engine.protocol import Frozen
from gateway.errors import InvalidRequest

Value = str | int | float | None
Adjust = Callable[[str, Value, Value, str], None]
"""Reports one adjustment: parameter, requested value, used value, reason."""
Leniency = Literal["refuse", "drop"]
"""What happens to a parameter that the model does not support: refused natively, dropped for AUTOMATIC1111."""


class Adjustment(Frozen):
    """An adjustment: one difference between the request and the result, for the client."""

    param: str
    asked: str | int | float | None
    used: str | int | float | None
    reason: str


def lacks(leniency: Leniency, adjust: Adjust, param: str, requested: str | int, reason: str) -> None:
    """Refuse a parameter that the model does not support, or drop it with an adjustment."""
    if leniency == "refuse":
        raise InvalidRequest(f"{reason}.", param=param)
    adjust(param, requested, None, reason)
