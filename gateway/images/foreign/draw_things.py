"""Draw Things: a JSON in XMP's `exif:UserComment`; `c` is the prompt, `uc` the negative one. Pure.

The packet is searched as text: no XML of a stranger is parsed. Source: pictures of Draw Things 1.2023 to 1.2025.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

from gateway.images.file_texts import USER_COMMENT, XMP
from gateway.images.foreign.values import Said, file_name, items, json_object, loras, mapping, number, size, text, whole

ELEMENT, END = "<exif:UserComment", "</exif:UserComment>"
ATTRIBUTE = 'exif:UserComment="'


def read(texts: Mapping[str, str]) -> Said | None:
    for written in (*_comments(texts.get(XMP, "")), texts.get(USER_COMMENT, "")):
        said = json_object(written)
        if said is not None and isinstance(said.get("c"), str) and ("sampler" in said or "seed" in said):
            return _said(said)
    return None


def _comments(packet: str) -> Iterator[str]:
    """The text of the comment: the first alternative of a list of languages, or itself, or an attribute."""
    begin = packet.find(ELEMENT)
    if begin >= 0 and (end := packet.find(END, begin)) >= 0:
        inside = packet[packet.find(">", begin) + 1 : end]
        if (item := inside.find("<rdf:li")) >= 0 and (close := inside.find("</rdf:li>", item)) >= 0:
            inside = inside[inside.find(">", item) + 1 : close]
        yield html.unescape(inside.strip().removeprefix("<![CDATA[").removesuffix("]]>"))
    begin = packet.find(ATTRIBUTE)
    if begin >= 0 and (end := packet.find('"', begin + len(ATTRIBUTE))) >= 0:
        yield html.unescape(packet[begin + len(ATTRIBUTE) : end])


def _said(said: Mapping[str, object]) -> Said:
    width, height = size(said.get("size"))
    strength = number(said.get("strength"))
    return {
        "program": "Draw Things",
        "prompt": text(said.get("c")),
        "negative_prompt": text(said.get("uc")),
        "model": file_name(said.get("model")),
        "width": width,
        "height": height,
        "steps": whole(said.get("steps")),
        "guidance": number(said.get("scale")),
        "seed": whole(said.get("seed")),
        "sampler": text(said.get("sampler")),
        "image_strength": strength if strength is not None and 0 <= strength < 1 else None,
        "loras": loras((mapping(row).get("model"), mapping(row).get("weight")) for row in items(said.get("lora"))),
    }
