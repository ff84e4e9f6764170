"""What a picture file says of how it was made. Pure; takes the bytes as they came."""

from __future__ import annotations

import json
from typing import Any

from adapters.sdapi.gif import comment, is_gif
from adapters.sdapi.infotext import parse, with_defaults
from gateway.file_text import whole
from gateway.picture_text import USER_COMMENT, texts

PNG_KEYWORD = "parameters"
NOVELAI_SAMPLERS = {
    "k_euler_ancestral": "Euler a",
    "k_euler": "Euler",
    "k_lms": "LMS",
    "plms": "PLMS",
    "ddim": "DDIM",
}


def infotext_of(data: bytes) -> tuple[str, dict[str, str]]:
    """The infotext, empty where there is none, and the file's other texts.

    Source: A1111 1.10.1 modules/images.py read_info_from_image.
    """
    items = {whole(keyword): whole(text) for keyword, text in texts(data).items()}
    info = items.pop(PNG_KEYWORD, None)
    if (exif := items.pop(USER_COMMENT, None)) is not None:
        info = exif
        items["exif comment"] = exif
    if items.get("Software") == "NovelAI" and (told := _novelai(items)) is not None:
        info = told
    if is_gif(data):
        info = comment(data)
    return info or "", items


def answer(data: bytes) -> dict[str, Any]:
    """Source: A1111 1.10.1 PNGInfoResponse."""
    info, items = infotext_of(data)
    return {"info": info, "items": items, "parameters": with_defaults(parse(info))}


def _novelai(items: dict[str, str]) -> str | None:
    try:
        said = json.loads(items["Comment"])
        sampler = NOVELAI_SAMPLERS.get(said["sampler"], "Euler a")
        line = f"Steps: {said['steps']}, Sampler: {sampler}, CFG scale: {said['scale']}, Seed: {said['seed']}"
        negative = said["uc"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return whole(f"{items.get('Description', '')}\nNegative prompt: {negative}\n{line}, Clip skip: 2, ENSD: 31337")
