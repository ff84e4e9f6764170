"""NovelAI: `Description`, `Source` and a JSON in `Comment`; also where they are hidden in the alpha channel. Pure.

Source: pictures of NovelAI Diffusion V1 to V4.5; docs.novelai.net on image metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.images.foreign.values import DrawingFields, items, json_object, mapping, number, text, whole

SOFTWARE = "NovelAI"
_HEX = frozenset("0123456789ABCDEF")


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    """The fields; None if the image does not name NovelAI."""
    metadata = json_object(texts.get("Comment"))
    if texts.get("Software") != SOFTWARE or metadata is None:
        return None
    prompt = _caption(metadata.get("v4_prompt")) or text(metadata.get("prompt")) or text(texts.get("Description"))
    request = metadata.get("request_type")
    is_from_image = isinstance(request, str) and "Img2Img" in request
    return {
        "program": SOFTWARE,
        "prompt": prompt,
        "negative_prompt": _caption(metadata.get("v4_negative_prompt")) or text(metadata.get("uc")),
        "model": _model(texts.get("Source", "")),
        "width": whole(metadata.get("width")),
        "height": whole(metadata.get("height")),
        "steps": whole(metadata.get("steps")),
        "guidance": number(metadata.get("scale")),
        "seed": whole(metadata.get("seed")),
        "sampler": text(metadata.get("sampler")),
        "scheduler": text(metadata.get("noise_schedule")),
        "image_strength": number(metadata.get("strength")) if is_from_image else None,
    }


def _model(source: str) -> str | None:
    """The model's name without its last eight digits, which identify its weights."""
    name, _, digits = source.strip().rpartition(" ")
    return text(name if len(digits) == 8 and set(digits) <= _HEX else source)


def _caption(metadata: Any) -> str | None:
    """A caption of version 4: the text for the whole image, and one line for each character."""
    caption = mapping(mapping(metadata).get("caption"))
    further = [text(mapping(row).get("char_caption")) for row in items(caption.get("char_captions"))]
    parts = [text(caption.get("base_caption")), *further]
    return text("\n".join(part for part in parts if part))
