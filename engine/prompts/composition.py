"""Composition: prompts joined by the word AND, each with a weight, as in `a cat AND a dog :0.5`.

Source: A1111 1.10.1 modules/prompt_parser.py `get_multicond_prompt_list`.
"""

from __future__ import annotations

import math
import re

from engine.prompts.attention import Part, split_at_word
from engine.prompts.errors import PromptError

AND = "AND"
_NUMBER = re.compile(r"[+-]?(?:\d++\.?|\d*+\.\d++)")
_NUMBER_CHARACTERS = "+-."


def split_composition(text: str) -> list[Part]:
    """Prompts that the word AND separates, at least one; one without a weight has 1.

    Raises: PromptError for a weight that is too large.
    """
    return [_weighted(prompt) for prompt in split_at_word(text, AND)]


def _weighted(prompt: str) -> Part:
    text = prompt.rstrip()
    begin = len(text)
    while begin and (text[begin - 1].isdecimal() or text[begin - 1] in _NUMBER_CHARACTERS):
        begin -= 1
    number = _NUMBER.fullmatch(text, begin)
    before = text[:begin].rstrip() if number is not None else ""
    if number is None or not before.endswith(":"):
        return Part(text, 1.0)
    weight = float(number[0])
    if not math.isfinite(weight):
        raise PromptError(f"The weight {number[0][:40]!r} of a part of the prompt is too large.")
    return Part(before[:-1].rstrip(), weight)
