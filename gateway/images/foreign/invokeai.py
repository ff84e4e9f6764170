"""InvokeAI in its three layouts: `invokeai_metadata` (from 3), `sd-metadata` (2), the command line `Dream` (1). Pure.

Source: InvokeAI 6 invokeai/app/invocations/metadata.py; InvokeAI 2.3 ldm/invoke/pngwriter.py and args.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.images.foreign.values import (
    DrawingFields,
    file_name,
    items,
    json_object,
    loras,
    mapping,
    number,
    text,
    whole,
)

METADATA, OLDER, OLDEST = "invokeai_metadata", "sd-metadata", "Dream"
_SWITCH = re.compile(r"-([A-Za-z])\s{0,4}(\S{1,64})")
_SWITCHES = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "guidance", "A": "sampler"}
"""Command line switches: `-s 50 -S 123 -W 512 -H 512 -C 7.5 -A k_lms`."""


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    if (metadata := json_object(texts.get(METADATA))) is not None:
        return _of_metadata(metadata)
    if (metadata := json_object(texts.get(OLDER))) is not None and isinstance(metadata.get("image"), dict):
        return _of_older(metadata, metadata["image"])
    return _of_command(texts.get(OLDEST, ""))


def _of_metadata(metadata: Mapping[str, Any]) -> DrawingFields:
    """Fields of version 3 and later. Models are `{name}`, before version 4 `{model_name}`."""
    guidance = metadata.get("guidance") if number(metadata.get("guidance")) is not None else metadata.get("cfg_scale")
    begins = metadata.get("generation_mode")
    is_from_image = isinstance(begins, str) and "txt2img" not in begins
    return {
        "program": "InvokeAI",
        "prompt": text(metadata.get("positive_prompt")),
        "negative_prompt": text(metadata.get("negative_prompt")),
        "model": _name(metadata.get("model")),
        "width": whole(metadata.get("width")),
        "height": whole(metadata.get("height")),
        "steps": whole(metadata.get("steps")),
        "guidance": number(guidance),
        "seed": whole(metadata.get("seed")),
        "sampler": text(metadata.get("scheduler")),
        "image_strength": number(metadata.get("strength")) if is_from_image else None,
        "loras": loras((_lora(row), mapping(row).get("weight")) for row in items(metadata.get("loras"))),
    }


def _name(model: object) -> str | None:
    row = mapping(model)
    return file_name(row.get("name") or row.get("model_name"))


def _lora(row: object) -> str | None:
    fields = mapping(row)
    return _name(fields.get("model")) or _name(fields.get("lora"))


def _of_older(metadata: Mapping[str, Any], image: Mapping[str, Any]) -> DrawingFields:
    """The prompt is a text, or a list of `{prompt, weight}`; what is in `[]` is negative."""
    rows = image.get("prompt")
    written = (
        rows
        if isinstance(rows, str)
        else "\n".join(row for row in (text(mapping(row).get("prompt")) for row in items(rows)) if row)
    )
    prompt, negative = _parted(written)
    is_from_image = image.get("type") == "img2img"
    return {
        "program": "InvokeAI",
        "prompt": prompt,
        "negative_prompt": negative,
        "model": file_name(metadata.get("model_weights")),
        "width": whole(image.get("width")),
        "height": whole(image.get("height")),
        "steps": whole(image.get("steps")),
        "guidance": number(image.get("cfg_scale")),
        "seed": whole(image.get("seed")),
        "sampler": text(image.get("sampler")),
        "image_strength": number(image.get("strength")) if is_from_image else None,
    }


def _of_command(line: str) -> DrawingFields | None:
    begin, end = line.find('"'), line.rfind('"')
    if begin != 0 or end == begin:
        return None
    prompt, negative = _parted(line[1:end])
    switches = {_SWITCHES[key]: value for key, value in _switches(line[end + 1 :]) if key in _SWITCHES}
    return {
        "program": "InvokeAI",
        "prompt": prompt,
        "negative_prompt": negative,
        "width": whole(switches.get("width")),
        "height": whole(switches.get("height")),
        "steps": whole(switches.get("steps")),
        "guidance": number(switches.get("guidance")),
        "seed": whole(switches.get("seed")),
        "sampler": text(switches.get("sampler")),
    }


def _switches(rest: str) -> list[tuple[str, str]]:
    return _SWITCH.findall(rest[:4096])


def _parted(written: str) -> tuple[str | None, str | None]:
    """Text outside `[]` (the prompt), and inside (the negative prompt)."""
    outside, inside, at = [], [], 0
    while (begin := written.find("[", at)) >= 0 and (end := written.find("]", begin)) >= 0:
        outside.append(written[at:begin])
        inside.append(written[begin + 1 : end])
        at = end + 1
    outside.append(written[at:])
    prompt = " ".join(part for part in (part.strip() for part in outside) if part)
    negative = ", ".join(part for part in (part.strip(" ,") for part in inside) if part)
    return text(prompt.rstrip(" ,")), text(negative)
