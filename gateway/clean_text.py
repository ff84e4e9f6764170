"""Cleaning of texts from untrusted files before anything else uses them.

Names and notes become one line; whole texts keep their lines.
"""

from __future__ import annotations

from math import isfinite

LINE_CHARS = 1000
MARKUP_CHARS = 64 * 1024
"""Characters of a text with markup that are read."""
NUMBER_MOST = 1e6


def one_line(text: object, most: int = LINE_CHARS) -> str:
    """The text as one line of at most `most` printable characters; empty if it is not a text."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:most]).strip()


def whole(text: str) -> str:
    """The whole text, with characters that no store accepts (NUL and single surrogates) replaced by U+FFFD."""
    text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_markup(text: str) -> str:
    """The beginning of a text without `<...>`."""
    text = text[:MARKUP_CHARS]
    parts, at = [], 0
    while (begin := text.find("<", at)) >= 0 and (end := text.find(">", begin)) >= 0:
        parts.append(text[at:begin])
        at = end + 1
    return "".join((*parts, text[at:]))


def number(value: object) -> float | None:
    """A finite number of moderate size; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not isfinite(value):
        return None
    return float(value) if abs(value) <= NUMBER_MOST else None
