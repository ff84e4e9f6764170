"""Recogniser: crops of lines to text, by rapidocr's recogniser; runs in the child.

Long lines are read in pieces, which bounds the memory of a step. Ink that belongs to no letter is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

PIECE = 40
"""Longest piece, in heights."""
BLANK = 0.2
"""Width of a gap between two words, as a share of the height."""
NEAR = 0.4
"""Ink this near to a letter's middle, as a share of the height, belongs to the letter."""
DOT = 0.13
"""Columns with less ink than this share of the height are dots and dashes, not all of which become a letter."""
LEAST_CONTRAST = 12
"""Grey levels."""
Pixels = Any
"""Array of height x width x 3, BGR, eight bits."""


@dataclass(frozen=True, slots=True)
class Words:
    """Text of a crop. `score` and `unread` are 0 to 1."""

    text: str
    score: float
    unread: float

    @property
    def weight(self) -> float:
        """Weight for comparing readings of one crop: confidence in the letters, and how much of the crop they are."""
        return self.score * (1 - self.unread) * bool(self.text)


class Recogniser:
    """Recogniser of crops; `rec` is rapidocr's TextRecognizer."""

    def __init__(self, rec: Any) -> None:
        from rapidocr.ch_ppocr_rec import TextRecInput

        self._rec = rec
        self._input: Any = TextRecInput

    def read(self, crops: list[Pixels]) -> list[Words]:
        """The text of each crop, in their order."""
        pieces: list[Pixels] = []
        parts: list[tuple[list[int], list[str]]] = []
        for crop in crops:
            cuts, joints = _cuts(crop)
            parts.append((list(range(len(pieces), len(pieces) + len(cuts) - 1)), joints))
            pieces += [crop[:, a:b] for a, b in pairwise(cuts)]
        if not pieces:
            return []
        out = self._rec(self._input(img=list(pieces), return_word_box=True))
        readings = [
            _reading(piece, text, score, info)
            for piece, text, score, info in zip(pieces, out.txts, out.scores, out.word_results, strict=True)
        ]
        return [_joined([readings[n] for n in numbers], joints) for numbers, joints in parts]


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    score: float
    unread_px: float
    ink_px: float


def _joined(pieces: list[_Piece], joints: list[str]) -> Words:
    text = pieces[0].text
    for joint, piece in zip(joints, pieces[1:], strict=True):
        text = text.rstrip() + joint + piece.text.lstrip() if joint else text + piece.text
    letters = sum(len(piece.text) for piece in pieces)
    ink = sum(piece.ink_px for piece in pieces)
    score = sum(piece.score * len(piece.text) for piece in pieces) / letters if letters else 0.0
    return Words(text.strip(), score, sum(piece.unread_px for piece in pieces) / ink if ink else 0.0)


def _reading(piece: Pixels, text: str, score: float, info: Any) -> _Piece:
    ink = ink_of(piece)
    ink[ink < DOT * piece.shape[0]] = 0
    total = float(ink.sum())
    if not text.strip():
        return _Piece("", 0.0, total, total)
    steps = [step for word in info.word_cols for step in word]
    if not steps or not total:
        return _Piece(text, float(score), 0.0, total)
    columns = np.flatnonzero(ink)
    px_a_step = piece.shape[1] / max(1.0, float(info.line_txt_len))
    middles = (np.asarray(steps) + 0.5) * px_a_step
    at = np.searchsorted(middles, columns)
    before = np.abs(columns - middles[np.maximum(at - 1, 0)])
    behind = np.abs(columns - middles[np.minimum(at, len(middles) - 1)])
    far = np.minimum(before, behind) > NEAR * piece.shape[0]
    return _Piece(text, float(score), float(ink[columns[far]].sum()), total)


def ink_of(crop: Pixels) -> Any:
    """Ink pixels in each column: an array of int."""
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_BGR2GRAY)
    if int(grey.max()) - int(grey.min()) < LEAST_CONTRAST:
        return np.zeros(grey.shape[1], int)
    _, dark = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if dark.mean() > 0.5:
        dark = 1 - dark
    return dark.sum(axis=0).astype(int)


def _cuts(crop: Pixels) -> tuple[list[int], list[str]]:
    """Where a line is cut, including its ends, and what joins the pieces: "" or a space."""
    height, width = crop.shape[:2]
    most = PIECE * max(1, height)
    cuts, joints = [0], []
    if width <= most:
        return [0, width], []
    ink = ink_of(crop) > 0.04 * height
    while width - cuts[-1] > most:
        begin, end = cuts[-1] + most // 2, cuts[-1] + most
        gap = _widest_gap(ink, begin, end)
        cuts.append(end - height if gap is None else (gap[0] + gap[1]) // 2)
        joints.append(" " if gap is not None and gap[1] - gap[0] >= BLANK * height else "")
    return [*cuts, width], joints


def _widest_gap(ink: Any, begin: int, end: int) -> tuple[int, int] | None:
    """The last of the widest gaps between two inked columns from `begin` to `end`."""
    blank = np.flatnonzero(~ink[begin:end])
    if not len(blank):
        return None
    runs = np.split(blank, np.flatnonzero(np.diff(blank) > 1) + 1)
    widest = max(runs, key=lambda run: (len(run), run[0]))
    return begin + int(widest[0]), begin + int(widest[-1]) + 1
