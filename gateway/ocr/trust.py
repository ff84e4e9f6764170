"""Whether what was recognised in a box is its text. Pure.

The recogniser writes nothing for letters it was not trained on, or looks for the likest it knows. So a line is trusted
where it is sure of its letters, the letters account for the ink, and no word mixes alphabets.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Verdict = Literal["text", "unsure", "nothing"]

LEAST_SCORE = 0.5
"""Of a line's letters, in the mean. Source: `text_score` of rapidocr."""
LEAST_WORDS_SCORE = 0.65
"""Of a line of some letters, in the mean; of fewer the mean says less. What has less and was known is garbled."""
GOOD_SCORE = 0.9
"""Below it, a line is trusted beside trusted ones only."""
ODD_SCORE = 0.8
"""Below it, a line with many odd words is not trusted."""
MOST_ODD = 0.2
"""Of a line's words of letters, which go on in capitals after small ones or digits."""
MOST_UNREAD = 0.15
"""Of a line's ink, for which no letter accounts. Chinese punctuation leaves 0.1."""
MOST_UNREAD_ALPHABETIC = 0.04
"""Of a line without Chinese or Japanese: European languages leave 0.005, Vietnamese 0.02 to 0.09."""
MOST_MIXED = 0.2
"""Of a line's letters, in words of two alphabets."""
MOST_GREEK = 0.6
"""Of a line's letters: Greek ones are known as signs of formulas, accented ones not at all."""
LEAST_LETTERS = 4
FIRST_WIDE = "\u2e80"
"""Chinese and Japanese signs and their punctuation come from here on."""
SURE_OF_TEXT = 0.6
"""How sure the detector is of a box that is text although nothing was recognised in it."""
LEAST_ASPECT = 1.5
"""Length in heights of a box that is told of although nothing was recognised in it: others are icons and dirt."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What the recogniser said of one box. Shares are 0 to 1."""

    text: str
    score: float
    unread: float
    """Share of the ink for which no letter accounts."""
    found: float
    """How sure the detector was."""
    aspect: float
    """Length in heights."""


def verdicts(lines: Sequence[Recognised]) -> list[Verdict]:
    """Of all lines of a page: a doubtful one follows the most of the others."""
    first = [_alone(line) for line in lines]
    sure = sum(len(line.text) for line, verdict in zip(lines, first, strict=True) if verdict == "text")
    unsure = sum(2 * line.aspect for line, verdict in zip(lines, first, strict=True) if verdict == "unsure")
    if unsure <= sure:
        return first
    return [
        "unsure" if verdict == "text" and line.score < GOOD_SCORE else verdict
        for line, verdict in zip(lines, first, strict=True)
    ]


def _alone(line: Recognised) -> Verdict:
    is_told = line.found >= SURE_OF_TEXT and line.aspect >= LEAST_ASPECT
    if not line.text:
        return "unsure" if is_told else "nothing"
    if line.score < LEAST_SCORE:
        return "unsure" if is_told else "nothing"
    most = MOST_UNREAD if any(char >= FIRST_WIDE for char in line.text) else MOST_UNREAD_ALPHABETIC
    if line.unread > most or _is_of_two_alphabets(line.text):
        return "unsure"
    if line.score < LEAST_WORDS_SCORE and sum(map(str.isalnum, line.text)) >= LEAST_LETTERS:
        return "unsure"
    if line.score < ODD_SCORE and _is_odd(line.text):
        return "unsure"
    return "text"


def _is_odd(text: str) -> bool:
    """Whether many words look like letters taken for others: `tALCO`, `t4LI`."""
    words = [word for word in text.split() if sum(map(str.isalpha, word)) >= 2]
    odd = sum(any(b.isupper() and (a.islower() or a.isdigit()) for a, b in pairwise(word)) for word in words)
    return odd > MOST_ODD * len(words)


def _is_of_two_alphabets(text: str) -> bool:
    """Greek prose, or Latin words with Greek letters in them: capitals of one look like those of the other."""
    letters = greek = mixed = 0
    for word in text.split():
        scripts = [_script(char) for char in word if char.isalpha()]
        letters += len(scripts)
        greek += scripts.count("GREEK")
        if len(scripts) >= LEAST_LETTERS and {"GREEK", "LATIN"} <= set(scripts):
            mixed += len(scripts)
    return letters >= LEAST_LETTERS and (greek > MOST_GREEK * letters or mixed > MOST_MIXED * letters)


def _script(char: str) -> str:
    return unicodedata.name(char, "?").partition(" ")[0]
