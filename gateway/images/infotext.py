"""Infotext of A1111 in a file: prompt, negative prompt, and a line of `Key: value` pairs. Written and parsed. Pure.

Source: A1111 1.10.1 modules/infotext_utils.py (reading), modules/processing.py create_infotext (writing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from gateway import __version__
from gateway.clean_text import whole

PNG_KEYWORD = "parameters"
"""Keyword of the PNG text; a JPEG or WebP has the infotext in EXIF's UserComment."""
VERSION = f"mflux-gateway {__version__}"
SAMPLER, SCHEDULER = "Euler", "Simple"
"""The only sampler and scheduler here: mflux spaces its flow-matching sigmas evenly before the shift, which A1111 and
Forge call "Simple".
"""
MAX_CHARS = 256 * 1024
NEGATIVE = "Negative prompt:"
FEWEST_PAIRS = 3
"""With fewer pairs, the last line is part of the prompt."""

_KEY = re.compile(r"\w[\w \-/]++")
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')


def compose(prompt: str, negative_prompt: str, pairs: Mapping[str, object]) -> str:
    """The infotext of one image; pairs whose value is None are omitted."""
    negative = [f"{NEGATIVE} {negative_prompt}"] if negative_prompt else []
    line = ", ".join(f"{key}: {quoted(value)}" for key, value in pairs.items() if value is not None)
    return "\n".join([prompt, *negative, line]).strip()


def quoted(value: object) -> str:
    """A value; as a JSON string if it contains the characters that separate pairs."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text


def parse(text: str) -> dict[str, str]:
    """All pairs, sizes as `Key-1` and `Key-2`, with `Prompt` and `Negative prompt`. Linear in the text's length."""
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
    values = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    for key, value in pairs.items():
        if size := _SIZE.fullmatch(value):
            values |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            values[key] = value
    return values


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
