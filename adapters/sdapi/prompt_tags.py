"""LoRA tags `<kind:name:...>` in prompts, and the ` [hash]` behind checkpoint titles, as A1111 writes them.

Pure. Each text is scanned once, in linear time: A1111's own regular expressions restart at every bracket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite

from engine.protocol import Lora
from gateway.errors import InvalidRequest

LORA_KINDS = ("lora", "lyco")
LORAS_MOST = 256
"""The most LoRAs in one prompt, whether they exist or not."""
ARGUMENT_CHARS = 1024
"""Characters of one tag that are read: no LoRA has a longer name."""
_KIND = re.compile(r"(\w++):")


def split_tags(prompt: str) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without `<kind:name:...>` tags, and its LoRAs. Raises: InvalidRequest for too many.

    Source: A1111 1.10.1: every such tag is removed, whatever its kind; extensions-builtin/Lora: name, strength for the
    text encoder, strength for the rest.
    """
    parts: list[str] = []
    loras: list[Lora] = []
    at = 0
    for begin, end, kind, arguments in tags(prompt):
        parts.append(prompt[at:begin])
        at = end
        if kind.lower() in LORA_KINDS:
            if len(loras) == LORAS_MOST:
                raise InvalidRequest(f"A prompt may call at most {LORAS_MOST} LoRAs.", param="prompt")
            loras.append(_lora(arguments[:ARGUMENT_CHARS].split(":")))
    return "".join((*parts, prompt[at:])), tuple(loras)


def tags(prompt: str) -> Iterator[tuple[int, int, str, str]]:
    r"""The begin, end, kind and arguments of each tag. Matches what `<(\w+):([^>]+)>` finds.

    Source: A1111 1.10.1 modules/extra_networks.py, re_extra_net.
    """
    last = prompt.rfind(">")
    begin = prompt.find("<")
    while 0 <= begin < last:
        opened = _KIND.match(prompt, begin + 1)
        after = begin + 1
        if opened is not None:
            closed = prompt.find(">", opened.end())
            if closed < 0:
                return
            after = opened.end()
            if closed > after:
                yield begin, closed + 1, opened[1], prompt[after:closed]
                after = closed + 1
        begin = prompt.find("<", after)


def without_hash(title: str) -> str:
    r"""A checkpoint title without the ` [hash]` that A1111 appends. Removes what ` \[[^\]]*\]$` matches."""
    end = len(title) - title.endswith("]\n") - 1
    if end < 0 or title[end] != "]":
        return title
    begin = title.find(" [", title.rfind("]", 0, end) + 1, end)
    return title if begin < 0 else title[:begin] + title[end + 1 :]


def dynamic_ranks(prompt: str) -> Iterator[str]:
    """Names of the LoRAs whose tags also name a rank: a fourth part, or `dyn=`."""
    for _, _, kind, arguments in tags(prompt):
        places, named = _parts(arguments[:ARGUMENT_CHARS].split(":"))
        if kind.lower() in LORA_KINDS and places and ("dyn" in named or len(places) > 3):
            yield places[0]


def _parts(parts: list[str]) -> tuple[list[str], dict[str, str]]:
    """The parts of a tag by place, and those with a name."""
    places = [part.strip() for part in parts if "=" not in part]
    return places, dict(part.strip().split("=", 1) for part in parts if "=" in part)


def _lora(parts: list[str]) -> Lora:
    places, named = _parts(parts)
    name = places[0] if places else ""
    text_encoder = _first_number(named.get("te"), *places[1:2])
    scale = _first_number(named.get("unet"), *places[2:3], named.get("te"), *places[1:2])
    scale, text_encoder = 1.0 if scale is None else scale, 1.0 if text_encoder is None else text_encoder
    return Lora(name=name, scale=scale, text_encoder_scale=None if text_encoder == scale else text_encoder)


def _first_number(*texts: str | None) -> float | None:
    return next((number for text in texts if text is not None and (number := _number(text)) is not None), None)


def _number(text: str) -> float | None:
    with suppress(ValueError):
        number = float(text)
        return number if isfinite(number) else None
    return None
