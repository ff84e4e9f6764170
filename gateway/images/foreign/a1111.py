"""AUTOMATIC1111's infotext, and that of all who write in its grammar: Forge, SD.Next, nodes of ComfyUI. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.images import infotext
from gateway.images.file_texts import USER_COMMENT
from gateway.images.foreign.values import Said, file_name, json_object, loras, number, text, whole

PARAMETERS = "parameters"
_TAG = re.compile(r"lora:([^:<>\n]{1,256}):([^:<>\n]{1,32})(?::[^:<>\n]{0,64})?")
_SETTINGS = ("Steps", "Seed", "Sampler", "CFG scale")
_HIRES = ("Hires upscale", "Hires resize-1", "Hires steps", "Hires upscaler")


def read(texts: Mapping[str, str]) -> Said | None:
    """From the PNG's text, or EXIF's UserComment where settings stand in it: cameras write there, too."""
    for name in (USER_COMMENT, PARAMETERS):
        written = texts.get(name, "")
        if json_object(written) is not None:
            continue
        found = infotext.parse(written)
        if any(key in found for key in _SETTINGS) or (name == PARAMETERS and found["Prompt"]):
            return _said(found)
    return None


def _said(found: Mapping[str, str]) -> Said:
    prompt, used = without_tags(found["Prompt"])
    is_ours = found.get("Version", "").startswith(infotext.VERSION.partition(" ")[0])
    return {
        "program": None if is_ours else "AUTOMATIC1111",
        "prompt": text(prompt),
        "negative_prompt": text(found["Negative prompt"]),
        "model": file_name(found.get("Model")),
        "width": whole(found.get("Size-1")),
        "height": whole(found.get("Size-2")),
        "steps": whole(found.get("Steps")),
        "guidance": number(found.get("Distilled CFG Scale", found.get("CFG scale"))),
        "seed": whole(found.get("Seed")),
        "sampler": None if is_ours else text(found.get("Sampler")),
        "scheduler": None if is_ours else text(found.get("Schedule type")),
        "image_strength": None if any(key in found for key in _HIRES) else number(found.get("Denoising strength")),
        "loras": loras(used),
    }


def without_tags(prompt: str) -> tuple[str, list[tuple[str, str]]]:
    """The prompt without `<lora:name:strength>`, and these."""
    kept, used, at = [], [], 0
    while (begin := prompt.find("<lora:", at)) >= 0 and (end := prompt.find(">", begin)) >= 0:
        if (tag := _TAG.fullmatch(prompt, begin + 1, end)) is not None and number(tag[2]) is not None:
            kept.append(prompt[at:begin].rstrip(" "))
            used.append((tag[1], tag[2]))
        else:
            kept.append(prompt[at : end + 1])
        at = end + 1
    return "".join((*kept, prompt[at:])).strip(), used
