r"""Attention: the weights that brackets give to parts of a prompt.

`(x)` multiplies the weight of x by 1.1, `[x]` divides by it, `(x:1.3)` multiplies by 1.3; brackets nest, and one that
is never closed acts to the end. `\(`, `\)`, `\[`, `\]` and `\\` are those characters themselves; a backslash before
anything else is left out. The word BREAK ends a chunk.

Source: A1111 1.10.1 modules/prompt_parser.py `parse_prompt_attention`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.prompts.errors import PromptError

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
BREAK = "BREAK"
BREAK_WEIGHT = -1.0
MOST_BRACKETS = 40
"""Brackets, from the inside, that act on a part of the text; those around them change its weight no further."""

_WEIGHT = re.compile(r":\s*+([+-]?[.\d]++)\s*+\)")
_TEXT = re.compile(r"[^\\()\[\]:]++")
_ESCAPED = frozenset("()[]\\")


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a prompt and its weight."""

    text: str
    weight: float

    @property
    def is_break(self) -> bool:
        """Whether it stands for the end of a chunk instead of for text, by A1111's own mark."""
        return self.text == BREAK and self.weight == BREAK_WEIGHT


class _Parts:
    """Parts found so far. A factor always acts on all parts from some position to the last."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.weights: list[float] = []
        self._factors: list[int] = []
        self._open: list[int] = []  # positions that still take factors, in ascending order

    def add(self, text: str, weight: float = 1.0) -> None:
        self._open.append(len(self.texts))
        self.texts.append(text)
        self.weights.append(weight)
        self._factors.append(0)

    def multiply(self, begin: int, factor: float) -> None:
        """Each part takes at most MOST_BRACKETS factors, so that all calls together are linear in the parts."""
        first = len(self._open)
        while first and self._open[first - 1] >= begin:
            first -= 1
        rest = []
        for position in self._open[first:]:
            self.weights[position] *= factor
            self._factors[position] += 1
            if self._factors[position] < MOST_BRACKETS:
                rest.append(position)
        self._open[first:] = rest

    def merged(self) -> Iterator[Part]:
        """Neighbours of equal weight become one part."""
        texts: list[str] = []
        for position, text in enumerate(self.texts):
            if texts and self.weights[position] != self.weights[position - 1]:
                yield Part("".join(texts), self.weights[position - 1])
                texts = []
            texts.append(text)
        if texts:
            yield Part("".join(texts), self.weights[-1])


def parse_attention(text: str) -> list[Part]:
    """Parts of a prompt with their weights, at least one. Raises: PromptError for a weight that is no finite number."""
    parts = _Parts()
    round_opened: list[int] = []
    square_opened: list[int] = []
    position = 0
    while position < len(text):
        character = text[position]
        weight = _WEIGHT.match(text, position) if character == ":" and round_opened else None
        position += 1
        if character == "\\":
            escaped = text[position : position + 1] in _ESCAPED
            parts.add(text[position] if escaped else "")
            position += escaped
        elif character == "(":
            round_opened.append(len(parts.texts))
        elif character == "[":
            square_opened.append(len(parts.texts))
        elif weight is not None:
            parts.multiply(round_opened.pop(), _number(weight[1]))
            position = weight.end()
        elif character == ")" and round_opened:
            parts.multiply(round_opened.pop(), ROUND_FACTOR)
        elif character == "]" and square_opened:
            parts.multiply(square_opened.pop(), SQUARE_FACTOR)
        else:
            rest = _TEXT.match(text, position) if character not in ":)]" else None
            begin, position = position - 1, rest.end() if rest is not None else position
            _add_text(parts, text[begin:position])
    for opened, factor in ((round_opened, ROUND_FACTOR), (square_opened, SQUARE_FACTOR)):
        for begin in opened:
            parts.multiply(begin, factor)
    if not all(map(math.isfinite, parts.weights)):
        raise PromptError("The weights of nested brackets multiply to a number that is too large.")
    return list(parts.merged()) or [Part("", 1.0)]


def split_at_word(text: str, word: str) -> list[str]:
    """Texts between the places where `word` stands as a word of its own."""
    found = []
    begin = position = 0
    while (position := text.find(word, position)) >= 0:
        end = position + len(word)
        if not _is_word(text[position - 1 : position]) and not _is_word(text[end : end + 1]):
            found.append(text[begin:position])
            begin = end
        position = end
    return [*found, text[begin:]]


def _add_text(parts: _Parts, text: str) -> None:
    pieces = split_at_word(text, BREAK)
    for number, piece in enumerate(pieces):
        if number > 0:
            parts.add(BREAK, BREAK_WEIGHT)
            piece = piece.lstrip()
        parts.add(piece.rstrip() if number < len(pieces) - 1 else piece)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise PromptError(f"The weight {text[:40]!r} in the prompt is no number.") from None
    if not math.isfinite(number):
        raise PromptError(f"The weight {text[:40]!r} in the prompt is too large.")
    return number
