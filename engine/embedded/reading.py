"""Prompt of the embedded model: the words that it knows, in the forms that it was trained on.

A small model is misled by words it has never seen, such as the quality tags that some programs put before every prompt.
They are left out, and the client is told which.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from engine.embedded import words

Kind = Literal["thing", "look", "place", "ground", "picture", "change", "joint", "article", "meaningless"]

MAX_REFERENCES = 2
"""Number of reference images that the model was trained with."""

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
"""Kinds without which a part of a prompt has no content."""

_LEADING = frozenset({"on", "in", "at"})
"""Joining words that may begin a part of a prompt."""


@dataclass(frozen=True)
class Reading:
    """The prompt as the model gets it, blank where it knows no word of it, and the words left out, each once."""

    text: str
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    kind: Kind
    text: str


@lru_cache(maxsize=16)  # called again for each image of a job
def read(prompt: str, references: int = 0) -> Reading:
    """The words of a prompt that the model knows, given the number of reference images."""
    text = _WEIGHT.sub("", prompt.lower())
    pair = references == MAX_REFERENCES
    if pair:
        text = _NUMBERED.sub(_number_reference, text)
    unread: dict[str, None] = {}
    parts = [list(_pieces(part, unread, min(references, MAX_REFERENCES))) for part in _parts(text)]
    if pair:
        parts = [_without_changes(part) for part in parts]
    kept = [pieces for part in parts if (pieces := _mend(part))]
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
    """Parts of a prompt: words between commas, full stops and line ends."""
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
    """Kind of each known phrase, given the number of reference images."""
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
    """The longest known phrases of a part; words of no phrase are collected in `unread`."""
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
    """A part without words for changes: with two reference images only their arrangement counts."""
    beside = [_Piece("joint", "beside") if piece.text in ("to", "into") else piece for piece in part]
    return [piece for piece in beside if piece.kind != "change"]


def _mend(part: list[_Piece]) -> list[_Piece]:
    """A part without articles and joining words that lost what they belonged to, and with a joining word between things
    that lost theirs; empty where it has no content.
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
    """The parts as one sentence: places belong to what was named before them."""
    text = ""
    for part in parts:
        words_of_part = " ".join(piece.text for piece in part)
        belongs = part[0].kind == "place" or part[0].text in _LEADING
        text += (" " if belongs else ", ") + words_of_part if text else words_of_part
    return text
