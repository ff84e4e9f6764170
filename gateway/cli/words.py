"""Formatting of numbers, times and texts for people. Pure."""

from __future__ import annotations

import math


def seconds(value: float | None) -> str:
    """4.2 s, 3:07, 1:02:03; nothing for None."""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(math.ceil(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def clipped(text: str | None, length: int = 48) -> str:
    """One line of at most `length` characters, without control characters for a terminal."""
    plain = "".join(c if c.isprintable() else " " for c in text or "").strip()
    return plain if len(plain) <= length else plain[: length - 1] + "…"
