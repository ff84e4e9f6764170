"""What files say, cleaned before anything else uses it: their texts come from strangers, to be judged, not obeyed.

One line for names and notes; whole texts keep their lines.
"""

from __future__ import annotations

from math import isfinite

LINE_CHARS = 1000
MARKUP_CHARS = 64 * 1024
"""Of a text with markup that are looked at."""
NUMBER_MOST = 1e6


def one_line(text: object, most: int = LINE_CHARS) -> str:
    """At most `most` characters, printable ones, on one line; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:most]).strip()


def whole(text: str) -> str:
    """The text without what no store takes: NUL and halves of surrogate pairs become U+FFFD."""
    text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_markup(text: str) -> str:
    """The beginning of a text, without `<...>`."""
    text = text[:MARKUP_CHARS]
    kept, at = [], 0
    while (begin := text.find("<", at)) >= 0 and (end := text.find(">", begin)) >= 0:
        kept.append(text[at:begin])
        at = end + 1
    return "".join((*kept, text[at:]))


def number(value: object) -> float | None:
    """A finite number of modest size; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not isfinite(value):
        return None
    return float(value) if abs(value) <= NUMBER_MOST else None
