"""Error bodies of all protocols: small, and clean text. Knows no protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_BYTES = 1024
TEXT_CHARS = (400, 200, 100, 64, 32, 16, 8, 4)
"""Lengths to which texts are cut, one after the other, if shorter lists are not enough."""


def bounded(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as at most `MOST_BYTES` of JSON: long lists are cut; a list of names says how many are missing.

    If that is not enough, long texts are cut.
    """
    shorter: dict[str, Any] = _clean(body)
    while (over := size_of(shorter) - MOST_BYTES) > 0:
        longest = max(_lists(shorter), key=size_of, default=[])
        if len(longest) < 2:
            break
        _shorten(longest, over)
    for most in TEXT_CHARS:
        if size_of(shorter) <= MOST_BYTES:
            break
        shorter = _cut(shorter, most)
    return shorter


def size_of(value: object) -> int:
    """Bytes of its JSON, as in responses."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _shorten(items: list[Any], over: int) -> None:
    """Remove entries from the end until `over` bytes are gone; in a list of names the last entry says how many were."""
    names, before = isinstance(items[0], str), len(items)
    freed = -len('"and 9999 more",') if names else 0
    while len(items) > 1 and freed < over:
        freed += size_of(items.pop()) + 1
    if names:
        items.append(f"and {before - len(items)} more")
        if len(items) == before:
            del items[1:]


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _lists(inner)
    elif isinstance(value, list):
        yield value


def _clean(value: Any) -> Any:
    """A mutable copy that can be written as UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[: most - 3] + "..."
    if isinstance(value, dict):
        return {key: _cut(inner, most) for key, inner in value.items()}
    return [_cut(inner, most) for inner in value] if isinstance(value, list) else value
