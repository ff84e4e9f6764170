"""NovelAI: `Description`, `Source` and a JSON in `Comment`; also where they are hidden in the alpha channel. Pure.

Source: pictures of NovelAI Diffusion V1 to V4.5; docs.novelai.net on image metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.images.foreign.values import Said, items, json_object, mapping, number, text, whole

SOFTWARE = "NovelAI"
_HEX = frozenset("0123456789ABCDEF")


def read(texts: Mapping[str, str]) -> Said | None:
    """None where the picture does not name NovelAI."""
    said = json_object(texts.get("Comment"))
    if texts.get("Software") != SOFTWARE or said is None:
        return None
    prompt = _caption(said.get("v4_prompt")) or text(said.get("prompt")) or text(texts.get("Description"))
    request = said.get("request_type")
    is_from_picture = isinstance(request, str) and "Img2Img" in request
    return {
        "program": SOFTWARE,
        "prompt": prompt,
        "negative_prompt": _caption(said.get("v4_negative_prompt")) or text(said.get("uc")),
        "model": _model(texts.get("Source", "")),
        "width": whole(said.get("width")),
        "height": whole(said.get("height")),
        "steps": whole(said.get("steps")),
        "guidance": number(said.get("scale")),
        "seed": whole(said.get("seed")),
        "sampler": text(said.get("sampler")),
        "scheduler": text(said.get("noise_schedule")),
        "image_strength": number(said.get("strength")) if is_from_picture else None,
    }


def _model(source: str) -> str | None:
    """The model's name, without the eight digits behind it that name its weights."""
    name, _, digits = source.strip().rpartition(" ")
    return text(name if len(digits) == 8 and set(digits) <= _HEX else source)


def _caption(said: Any) -> str | None:
    """That of version 4: a text for the whole, and one a character, on lines of their own."""
    caption = mapping(mapping(said).get("caption"))
    further = [text(mapping(row).get("char_caption")) for row in items(caption.get("char_captions"))]
    parts = [text(caption.get("base_caption")), *further]
    return text("\n".join(part for part in parts if part))
