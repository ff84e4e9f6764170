"""Draw Things: JSON in XMP's `exif:UserComment`; `c` is the prompt, `uc` the negative prompt. Pure.

The packet is searched as text, so that no untrusted XML is parsed. Source: images of Draw Things 1.2023 to 1.2025.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

from gateway.images.file_texts import USER_COMMENT, XMP
from gateway.images.foreign.values import (
    DrawingFields,
    file_name,
    items,
    json_object,
    loras,
    mapping,
    number,
    size,
    text,
    whole,
)

ELEMENT, END = "<exif:UserComment", "</exif:UserComment>"
ATTRIBUTE = 'exif:UserComment="'


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    for written in (*_comments(texts.get(XMP, "")), texts.get(USER_COMMENT, "")):
        metadata = json_object(written)
        if (
            metadata is not None
            and isinstance(metadata.get("c"), str)
            and ("sampler" in metadata or "seed" in metadata)
        ):
            return _fields(metadata)
    return None


def _comments(packet: str) -> Iterator[str]:
    """Texts of the comment: the first alternative of a language list, the element itself, or an attribute."""
    begin = packet.find(ELEMENT)
    if begin >= 0 and (end := packet.find(END, begin)) >= 0:
        inside = packet[packet.find(">", begin) + 1 : end]
        if (item := inside.find("<rdf:li")) >= 0 and (close := inside.find("</rdf:li>", item)) >= 0:
            inside = inside[inside.find(">", item) + 1 : close]
        yield html.unescape(inside.strip().removeprefix("<![CDATA[").removesuffix("]]>"))
    begin = packet.find(ATTRIBUTE)
    if begin >= 0 and (end := packet.find('"', begin + len(ATTRIBUTE))) >= 0:
        yield html.unescape(packet[begin + len(ATTRIBUTE) : end])


def _fields(metadata: Mapping[str, object]) -> DrawingFields:
    width, height = size(metadata.get("size"))
    strength = number(metadata.get("strength"))
    return {
        "program": "Draw Things",
        "prompt": text(metadata.get("c")),
        "negative_prompt": text(metadata.get("uc")),
        "model": file_name(metadata.get("model")),
        "width": width,
        "height": height,
        "steps": whole(metadata.get("steps")),
        "guidance": number(metadata.get("scale")),
        "seed": whole(metadata.get("seed")),
        "sampler": text(metadata.get("sampler")),
        "image_strength": strength if strength is not None and 0 <= strength < 1 else None,
        "loras": loras((mapping(row).get("model"), mapping(row).get("weight")) for row in items(metadata.get("lora"))),
    }
