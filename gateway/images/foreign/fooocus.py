"""Fooocus in its own scheme: JSON in `parameters` or EXIF's UserComment, before version 2.2 in `Comment`. Pure.

Its other scheme is A1111's infotext. Source: Fooocus 2.5 modules/meta_parser.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.images.file_texts import COMMENT, USER_COMMENT
from gateway.images.foreign.values import DrawingFields, file_name, items, json_object, loras, number, size, text, whole

PLACES = ("parameters", USER_COMMENT, "Comment", COMMENT)


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    for name in PLACES:
        if (metadata := json_object(texts.get(name))) is not None and "prompt" in metadata and "base_model" in metadata:
            return _fields(metadata)
    return None


def _fields(metadata: Mapping[str, Any]) -> DrawingFields:
    width, height = size(metadata.get("resolution"))
    return {
        "program": "Fooocus",
        "prompt": text(metadata.get("prompt")),
        "negative_prompt": text(metadata.get("negative_prompt")),
        "model": file_name(metadata.get("base_model")),
        "width": width if width is not None else whole(metadata.get("width")),
        "height": height if height is not None else whole(metadata.get("height")),
        "steps": whole(metadata.get("steps")),
        "guidance": number(metadata.get("guidance_scale", metadata.get("cfg"))),
        "seed": whole(metadata.get("seed")),
        "sampler": text(metadata.get("sampler")),
        "scheduler": text(metadata.get("scheduler")),
        "loras": loras(_loras(metadata)),
    }


def _loras(metadata: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    """LoRAs: `loras` lists name, weight, hash; before version 2.3 each is `lora_combined_<n>`: `name : weight`."""
    for row in items(metadata.get("loras")):
        match row:
            case [name, weight, *_]:
                yield name, weight
    for key, value in metadata.items():
        if key.startswith("lora_combined_") and isinstance(value, str):
            name, _, weight = value.rpartition(" : ")
            yield name, weight
