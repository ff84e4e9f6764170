"""Trust: whether the recognised text of a box is right. Pure.

For letters it was not trained on the recogniser writes nothing, or the most similar letters it knows. So a line is
trusted if its letters have a high score and account for the ink, and no word mixes alphabets.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Verdict = Literal["text", "unsure", "nothing"]

LEAST_SCORE = 0.5
"""Least mean score of a line's letters. Source: `text_score` of rapidocr."""
LEAST_WORDS_SCORE = 0.65
"""Least mean score of a line of several letters; with fewer the mean says less. Below it, a line is garbled."""
GOOD_SCORE = 0.9
"""Below this score a line is trusted only beside trusted ones."""
ODD_SCORE = 0.8
"""Below this score a line with many odd words is not trusted."""
MOST_ODD = 0.2
"""Share of a line's words in which capitals follow small letters or digits."""
MOST_UNREAD = 0.15
"""Share of a line's ink that belongs to no letter. Chinese punctuation leaves 0.1."""
MOST_UNREAD_ALPHABETIC = 0.04
"""The same for a line without Chinese or Japanese: European languages leave 0.005, Vietnamese 0.02 to 0.09."""
MOST_MIXED = 0.2
"""Share of a line's letters in words of two alphabets."""
MOST_GREEK = 0.6
"""Share of Greek letters in a line: the recogniser knows Greek as symbols of formulas, and no accented letters."""
LEAST_LETTERS = 4
FIRST_WIDE = "\u2e80"
"""First code point of Chinese and Japanese signs and their punctuation."""
SURE_OF_TEXT = 0.6
"""Detector's score from which a box counts as text although nothing was recognised in it."""
LEAST_ASPECT = 1.5
"""Least length in heights of a box that is reported although nothing was recognised: others are icons and specks."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """Recognition result of one box. Shares are 0 to 1."""

    text: str
    score: float
    unread: float
    """Share of the ink that belongs to no letter."""
    box_score: float
    """The detector's score."""
    aspect: float
    """Length in heights."""


def verdicts(lines: Sequence[Recognised]) -> list[Verdict]:
    """Verdicts on all lines of a page: doubtful ones follow the majority of the others."""
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
    is_reported = line.box_score >= SURE_OF_TEXT and line.aspect >= LEAST_ASPECT
    if not line.text:
        return "unsure" if is_reported else "nothing"
    if line.score < LEAST_SCORE:
        return "unsure" if is_reported else "nothing"
    most = MOST_UNREAD if any(char >= FIRST_WIDE for char in line.text) else MOST_UNREAD_ALPHABETIC
    if line.unread > most or _is_of_two_alphabets(line.text):
        return "unsure"
    if line.score < LEAST_WORDS_SCORE and sum(map(str.isalnum, line.text)) >= LEAST_LETTERS:
        return "unsure"
    if line.score < ODD_SCORE and _is_odd(line.text):
        return "unsure"
    return "text"


def _is_odd(text: str) -> bool:
    """Whether many words look like letters mistaken for others: `tALCO`, `t4LI`."""
    words = [word for word in text.split() if sum(map(str.isalpha, word)) >= 2]
    odd = sum(any(b.isupper() and (a.islower() or a.isdigit()) for a, b in pairwise(word)) for word in words)
    return odd > MOST_ODD * len(words)


def _is_of_two_alphabets(text: str) -> bool:
    """Whether it is Greek prose, or Latin words with Greek letters, whose capitals look alike."""
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
