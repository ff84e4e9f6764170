"""A1111's infotext, written and read: prompt, negative prompt, one line of `Key: value` pairs. Pure.

Source: A1111 1.10.1 modules/infotext_utils.py (reading), modules/processing.py create_infotext (writing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.file_text import whole

MAX_CHARS = 256 * 1024
NEGATIVE = "Negative prompt:"
FEWEST_PAIRS = 3
"""With fewer, the last line belongs to the prompt."""

_KEY = re.compile(r"\w[\w \-/]++")
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')

DEFAULTS: Mapping[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Cache FP16 weight for LoRA": False,
    "Emphasis": "Original",
    "Refiner switch by sampling steps": False,
}
"""What a missing key means. Source: parse_generation_parameters."""


def compose(prompt: str, negative_prompt: str, pairs: Mapping[str, object]) -> str:
    """The text of one picture; a pair whose value is None is left out."""
    negative = [f"{NEGATIVE} {negative_prompt}"] if negative_prompt else []
    line = ", ".join(f"{key}: {quoted(value)}" for key, value in pairs.items() if value is not None)
    return "\n".join([prompt, *negative, line]).strip()


def quoted(value: object) -> str:
    """A value, as JSON text where it holds what separates pairs."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text


def parse(text: str) -> dict[str, str]:
    """Every pair, sizes as `Key-1` and `Key-2`, and `Prompt` and `Negative prompt`. Linear in the text's length."""
    *lines, last = text[:MAX_CHARS].strip().split("\n")
    pairs = dict(_pairs(last))
    if len(pairs) < FEWEST_PAIRS:
        lines, pairs = [*lines, last], {}
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            part, line = negative, line[len(NEGATIVE) :].strip()
        part.append(line)
    found = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    for key, value in pairs.items():
        if size := _SIZE.fullmatch(value):
            found |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            found[key] = value
    return found


def with_defaults(found: Mapping[str, str]) -> dict[str, Any]:
    """What png-info shows: the pairs, and what the missing ones mean."""
    return {**found, **{key: value for key, value in DEFAULTS.items() if key not in found}}


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    at = 0
    while (colon := line.find(":", at)) >= 0:
        key = line[at:colon].rpartition(",")[2].strip()
        start = colon + 1
        while start < len(line) and line[start].isspace():
            start += 1
        string = _QUOTED.match(line, start)
        if string is not None and line[string.end() : string.end() + 1] in ("", ","):
            value, end = _unquoted(string[0]), string.end()
        else:
            comma = line.find(",", start)
            end = len(line) if comma < 0 else comma
            value = line[start:end].strip()
        if _KEY.fullmatch(key):
            yield key, value
        at = end + 1


def _unquoted(text: str) -> str:
    try:
        return whole(str(json.loads(text)))
    except ValueError:
        return text
