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

LORAS_MOST = 256
"""The most LoRAs in one prompt, whether they exist or not."""
ARGUMENT_CHARS = 1024
"""Characters of one tag that are read: no LoRA has a longer name."""
_KIND = re.compile(r"(\w++):")


def split_tags(prompt: str) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without `<kind:name:...>` tags, and its LoRAs. Raises: InvalidRequest for too many.

    Source: A1111 1.10.1: every such tag is removed, whatever its kind; extensions-builtin/Lora: name, strength for the
    text encoder, strength for the rest; the latter is used here.
    """
    parts: list[str] = []
    loras: list[Lora] = []
    at = 0
    for begin, end, kind, arguments in tags(prompt):
        parts.append(prompt[at:begin])
        at = end
        if kind.lower() in ("lora", "lyco"):
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


def _lora(parts: list[str]) -> Lora:
    places = [part.strip() for part in parts if "=" not in part]
    named = dict(part.strip().split("=", 1) for part in parts if "=" in part)
    for text in (named.get("unet"), *places[2:3], named.get("te"), *places[1:2]):
        if text is not None and (scale := _number(text)) is not None:
            return Lora(name=places[0] if places else "", scale=scale)
    return Lora(name=places[0] if places else "")


def _number(text: str) -> float | None:
    with suppress(ValueError):
        number = float(text)
        return number if isfinite(number) else None
    return None
