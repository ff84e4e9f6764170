"""A1111: infotext of AUTOMATIC1111 and of all programs that write it: Forge, SD.Next, nodes of ComfyUI. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from gateway.images import infotext, sampling_infotext
from gateway.images.file_texts import USER_COMMENT
from gateway.images.foreign.values import MAX_LORAS, DrawingFields, file_name, json_object, loras, number, text, whole

PARAMETERS = "parameters"
_TAG = re.compile(r"lora:([^:<>\n]{1,256}):([^:<>\n]{1,32})(?::([^:<>\n]{0,64}))?")
_SETTINGS = ("Steps", "Seed", "Sampler", "CFG scale")
_HIRES = ("Hires upscale", "Hires resize-1", "Hires steps", "Hires upscaler")


def read(texts: Mapping[str, str]) -> DrawingFields | None:
    """Fields from the PNG's text, or from EXIF's UserComment if it has settings: cameras write there, too."""
    for name in (USER_COMMENT, PARAMETERS):
        written = texts.get(name, "")
        if json_object(written) is not None:
            continue
        pairs = infotext.parse(written)
        if any(key in pairs for key in _SETTINGS) or (name == PARAMETERS and pairs["Prompt"]):
            return _fields(pairs)
    return None


def _fields(pairs: Mapping[str, str]) -> DrawingFields:
    prompt, used = without_tags(pairs["Prompt"])
    is_ours = pairs.get("Version", "").startswith(infotext.VERSION.partition(" ")[0])
    return {
        "program": None if is_ours else "AUTOMATIC1111",
        "prompt": text(prompt),
        "negative_prompt": text(pairs["Negative prompt"]),
        "model": file_name(pairs.get("Model")),
        "model_hash": text(pairs.get("Model hash")),
        "width": whole(pairs.get("Size-1")),
        "height": whole(pairs.get("Size-2")),
        "steps": whole(pairs.get("Steps")),
        "guidance": number(pairs.get("Distilled CFG Scale", pairs.get("CFG scale"))),
        "seed": whole(pairs.get("Seed")),
        "sampler": None if is_ours else text(pairs.get("Sampler")),
        "scheduler": None if is_ours else text(pairs.get("Schedule type")),
        "image_strength": None if any(key in pairs for key in _HIRES) else number(pairs.get("Denoising strength")),
        "sampling": sampling_infotext.request_in(pairs),
        "loras": tuple(_loras(used)),
    }


Tag = tuple[str, str, str | None]
"""Name of a LoRA, its strength, and the strength for text encoders where that is another one."""


def _loras(used: Iterable[Tag]) -> Iterator[Mapping[str, object]]:
    for name, strength, of_text in list(used)[:MAX_LORAS]:
        for row in loras(((name, strength),)):
            yield row if of_text is None else {**row, "text_encoder_scale": number(of_text)}


def without_tags(prompt: str) -> tuple[str, list[Tag]]:
    """The prompt without `<lora:name:strength>` and `<lora:name:strength for text:strength>` tags, and the tags."""
    parts, at = [], 0
    used: list[Tag] = []
    while (begin := prompt.find("<lora:", at)) >= 0 and (end := prompt.find(">", begin)) >= 0:
        if (tag := _TAG.fullmatch(prompt, begin + 1, end)) is not None and number(tag[2]) is not None:
            parts.append(prompt[at:begin].rstrip(" "))
            has_two = number(tag[3]) is not None
            used.append((tag[1], tag[3], tag[2]) if has_two else (tag[1], tag[2], None))
        else:
            parts.append(prompt[at : end + 1])
        at = end + 1
    return "".join((*parts, prompt[at:])).strip(), used
