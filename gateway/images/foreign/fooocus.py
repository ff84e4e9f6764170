"""Fooocus in its own scheme: a JSON in `parameters` or EXIF's UserComment; before 2.2 in `Comment`. Pure.

Its other scheme is A1111's infotext. Source: Fooocus 2.5 modules/meta_parser.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.images.file_texts import COMMENT, USER_COMMENT
from gateway.images.foreign.values import Said, file_name, items, json_object, loras, number, size, text, whole

PLACES = ("parameters", USER_COMMENT, "Comment", COMMENT)


def read(texts: Mapping[str, str]) -> Said | None:
    for name in PLACES:
        if (said := json_object(texts.get(name))) is not None and "prompt" in said and "base_model" in said:
            return _said(said)
    return None


def _said(said: Mapping[str, Any]) -> Said:
    width, height = size(said.get("resolution"))
    return {
        "program": "Fooocus",
        "prompt": text(said.get("prompt")),
        "negative_prompt": text(said.get("negative_prompt")),
        "model": file_name(said.get("base_model")),
        "width": width if width is not None else whole(said.get("width")),
        "height": height if height is not None else whole(said.get("height")),
        "steps": whole(said.get("steps")),
        "guidance": number(said.get("guidance_scale", said.get("cfg"))),
        "seed": whole(said.get("seed")),
        "sampler": text(said.get("sampler")),
        "scheduler": text(said.get("scheduler")),
        "loras": loras(_loras(said)),
    }


def _loras(said: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    """`loras` is a list of name, weight and hash; before 2.3 each is a `lora_combined_<n>`: `name : weight`."""
    for row in items(said.get("loras")):
        match row:
            case [name, weight, *_]:
                yield name, weight
    for key, value in said.items():
        if key.startswith("lora_combined_") and isinstance(value, str):
            name, _, weight = value.rpartition(" : ")
            yield name, weight
