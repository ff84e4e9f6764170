"""What the embedded model reads of a prompt: the words that it knows, in the forms that it was trained on.

A small model is led astray by words it never saw, such as the quality tags that some programs put before every prompt.
They are left away, and whoever asked is told which.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from engine.embedded import words

Kind = Literal["thing", "look", "place", "ground", "picture", "change", "joint", "article", "meaningless"]

MAX_REFERENCES = 2
"""Reference references that the model was trained with."""

_WEIGHT = re.compile(r":[ ]?-?[0-9][0-9.]{0,7}")
"""The weight in A1111's `(words:1.1)`."""

_TOKEN = re.compile(r"""[0-9]++[.][0-9]++|[^\s,.;:()\[\]{}<>|!?"“”„…\\_]++|[,.;\n]""")
_BREAKS = frozenset(",.;\n")

_IMAGE_WORDS = r"(?:picture|image|photo|drawing|reference|one)"
_NTH = rf"(?P<nth>first|1st|second|2nd)(?: {_IMAGE_WORDS})?"
_NUMBERED = re.compile(rf"\b(?:(?P<of>of|from|in) )?(?:the )?(?:{_NTH}|{_IMAGE_WORDS} #?(?P<number>[12]|two))\b")
_SECOND = frozenset({"second", "2nd", "2", "two"})
_BOTH = "picture 1 beside picture 2"

_NOUNS = frozenset({"thing", "ground", "picture"})
_TELLING = _NOUNS | {"look", "place"}
"""A part of a prompt without any of these says nothing."""

_LEADING = frozenset({"on", "in", "at"})
"""What a part of a prompt may begin with, of all that joins one thing to another."""


@dataclass(frozen=True)
class Reading:
    """The prompt as the model gets it, blank where it knows no word of it, and the words left away, each once."""

    text: str
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    kind: Kind
    text: str


@lru_cache(maxsize=16)  # each picture of a job asks again
def read(prompt: str, references: int = 0) -> Reading:
    """What of a prompt the model reads beside so many reference pictures."""
    text = _WEIGHT.sub("", prompt.lower())
    pair = references == MAX_REFERENCES
    if pair:
        text = _NUMBERED.sub(_number_reference, text)
    unread: dict[str, None] = {}
    parts = [list(_pieces(part, unread, min(references, MAX_REFERENCES))) for part in _parts(text)]
    if pair:
        parts = [_without_changes(part) for part in parts]
    kept = [mend_result for part in parts if (mend_result := _mend(part))]
    if pair and not any(piece.kind in ("thing", "picture") for part in kept for piece in part):
        kept = [
            [_Piece("picture", _BOTH)],
            *(part for part in kept if part[-1].kind == "ground" or part[0].text == "on"),
        ]
    return Reading(_join(kept), tuple(unread))


def _number_reference(match: re.Match[str]) -> str:
    number = 2 if (match["nth"] or match["number"]) in _SECOND else 1
    return f"{'of ' if match['of'] else ''}picture {number}"


def _parts(text: str) -> Iterator[list[str]]:
    """Words between commas, full stops and line ends."""
    part: list[str] = []
    for token in _TOKEN.findall(text):
        if token in _BREAKS:
            yield part
            part = []
        else:
            part.append(token)
    yield part


@cache
def _phrases(references: int) -> dict[str, Kind]:
    """What each phrase is, beside so many reference pictures."""
    kinds: list[tuple[Kind, Iterable[str]]] = [("meaningless", words.MEANINGLESS)]
    if references:
        kinds.append(("change", words.CHANGES))
    if references == MAX_REFERENCES:
        kinds += [("meaningless", words.COMBINING), ("picture", ("picture 1", "picture 2"))]
    kinds += [("look", (*words.COLOURS, *words.COUNTS, *words.SIZES)), ("place", words.PLACES)]
    kinds += [("joint", words.RELATIONS), ("article", words.ARTICLES), ("thing", words.things())]
    return {phrase: kind for kind, phrases in kinds for phrase in phrases} | {"background": "ground"}


@cache
def _longest(references: int) -> int:
    return max(phrase.count(" ") + 1 for phrase in _phrases(references))


def _pieces(part: list[str], unread: dict[str, None], references: int) -> Iterator[_Piece]:
    """The longest known phrases of a part; words of none are noted as unread."""
    known, at = _phrases(references), 0
    while at < len(part):
        for length in range(min(_longest(references), len(part) - at), 0, -1):
            phrase = " ".join(part[at : at + length])
            if kind := known.get(phrase):
                if kind != "meaningless":
                    yield _Piece(kind, phrase)
                at += length
                break
        else:
            unread.setdefault(part[at])
            at += 1


def _without_changes(part: list[_Piece]) -> list[_Piece]:
    """A part that says what is to stand beside what, not what to do for it."""
    beside = [_Piece("joint", "beside") if piece.text in ("to", "into") else piece for piece in part]
    return [piece for piece in beside if piece.kind != "change"]


def _mend(part: list[_Piece]) -> list[_Piece]:
    """A part without articles and joints that lost what they belonged to, and with a joint between things that lost
    theirs; empty where it says nothing.
    """
    if not any(piece.kind in _TELLING for piece in part):
        return []
    kept: list[_Piece] = []
    following: _Piece | None = None
    for piece in reversed(part):
        if following is None and piece.kind in ("article", "joint"):
            continue
        if following and following.kind == "joint" and piece.kind in ("article", "joint"):
            continue
        if following and following.kind == piece.kind == "article":
            continue
        if piece.text in ("a", "an") and following:
            piece = _Piece("article", "an" if following.text[0] in "aeiou" else "a")
        parted = piece.kind in ("thing", "picture") and following and following.kind in ("article", "look", "thing")
        if parted and (noun := next((later.kind for later in reversed(kept) if later.kind in _NOUNS), None)):
            kept.append(_Piece("joint", "on" if noun == "ground" else "and"))
        kept.append(piece)
        following = piece
    while kept and kept[-1].kind == "joint" and kept[-1].text not in _LEADING:
        kept.pop()
    return kept[::-1]


def _join(parts: list[list[_Piece]]) -> str:
    """The parts as one sentence: places belong to what was said before them."""
    text = ""
    for part in parts:
        words_of_part = " ".join(piece.text for piece in part)
        belongs = part[0].kind == "place" or part[0].text in _LEADING
        text += (" " if belongs else ", ") + words_of_part if text else words_of_part
    return text
