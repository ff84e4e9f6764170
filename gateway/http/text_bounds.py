"""Bounds on the texts of a request, checked before anything else reads them. Knows no protocol and no field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import InvalidRequest

TEXT_CHARS = 8192
"""Characters of a name, path or word: of every text for which no field allows more."""
ITEMS = 2048
"""Entries of one list."""


def check_texts(value: Any, longer: Mapping[str, int]) -> None:
    """Check every text and list in a JSON object; `longer` has the characters of fields that allow more.

    A field's bound applies to everything nested in it. Raises: InvalidRequest naming the outermost field.
    """
    waiting = [(value, TEXT_CHARS, "")]
    while waiting:
        item, most, param = waiting.pop()
        if isinstance(item, str):
            if len(item) > most:
                raise InvalidRequest(f"The text is longer than {most} characters: it has {len(item)}.", param=param)
        elif isinstance(item, list):
            if len(item) > ITEMS:
                raise InvalidRequest(f"The list has more than {ITEMS} entries: it has {len(item)}.", param=param)
            waiting.extend((inner, most, param) for inner in item)
        elif isinstance(item, dict):
            waiting.extend((inner, longer.get(key, most), param or key) for key, inner in item.items())
