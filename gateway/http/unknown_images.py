"""Images in unknown fields, which must not be ignored silently. Pure; knows no field by name."""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress

HEAD_CHARS = 32
LEAST_CHARS = 64
"""Characters of base64 that may be an image; shorter text is a word."""
_DATA_URL = re.compile(r"\s{0,64}data:(image/|[^,;]{0,64}(?:;[^,;]{0,64}){0,4},)", re.IGNORECASE)
_MAGIC = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|RIFF....WEBP|....ftyp(?:avi[fs]|hei[cxms]|mif1|msf1)", re.DOTALL
)


def unknown_images(body: Mapping[str, object], known: Container[str]) -> list[str]:
    """The fields besides the `known` ones that contain an image at any depth, as base64 or a data URL."""
    return [name for name, value in body.items() if name not in known and any(map(is_image, _texts(value)))]


def is_image(text: str) -> bool:
    """Whether the text begins like an image; only its beginning is read."""
    start = _DATA_URL.match(text)
    if start is not None and start[1].lower() == "image/":
        return True
    head = text[start.end() :][:HEAD_CHARS] if start is not None else text[:LEAST_CHARS].lstrip()[:HEAD_CHARS]
    if start is None and len(text) < LEAST_CHARS:
        return False
    with suppress(ValueError):
        return _MAGIC.match(base64.b64decode(head[: len(head) // 4 * 4], validate=True)) is not None
    return False


def _texts(value: object) -> Iterator[str]:
    """All texts in a value, which is as deep as a body may be."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
