"""CLIP's tokens of prompts, by the vocabulary in the wheel of open_clip_torch; and the few of them that are trained."""

from __future__ import annotations

import gzip
import re
import unicodedata
from functools import cache
from importlib.metadata import files
from itertools import pairwise
from random import Random

import numpy as np

from tools.train_embedded.icons import KINDS
from tools.train_embedded.scenes import sample_scene

from .captions import BARE, FILLERS, caption

START, END = 49406, 49407
LENGTH = 77
_MERGES = 49152 - 256 - 2
_PARTS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+", re.IGNORECASE)


def _byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte, as GPT-2's tokenizer has it, in the vocabulary's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@cache
def _vocabulary() -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Ids of tokens, and ranks of merges."""
    found = [file for file in files("open_clip_torch") or () if file.name == "bpe_simple_vocab_16e6.txt.gz"]
    with gzip.open(found[0].locate(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : 1 + _MERGES]
    merges = [(one, other) for one, other in (line.split() for line in lines)]
    characters = [*_byte_characters().values()]
    tokens = [*characters, *(f"{c}</w>" for c in characters), *("".join(pair) for pair in merges)]
    return {token: i for i, token in enumerate(tokens)}, {pair: i for i, pair in enumerate(merges)}


@cache
def _word(word: str) -> tuple[int, ...]:
    ids, ranks = _vocabulary()
    table = _byte_characters()
    letters = [table[byte] for byte in word.encode("utf-8")]
    parts = [*letters[:-1], f"{letters[-1]}</w>"]
    while len(parts) > 1:
        pairs = [(ranks.get(pair, len(ranks)), i) for i, pair in enumerate(pairwise(parts))]
        rank, place = min(pairs)
        if rank == len(ranks):
            break
        parts[place : place + 2] = ["".join(parts[place : place + 2])]
    return tuple(ids[part] for part in parts)


@cache
def token_ids(text: str) -> tuple[int, ...]:
    """CLIP's ids of a text, without start, end and padding."""
    plain = " ".join(unicodedata.normalize("NFC", text).lower().split())
    return tuple(token for word in _PARTS.findall(plain) for token in _word(word))


def padded(text: str) -> list[int]:
    """77 ids: start, the text, end, and further ends."""
    tokens = [START, *token_ids(text)[: LENGTH - 2], END]
    return tokens + [END] * (LENGTH - len(tokens))


def trained_tokens(seed: int = 0, captions: int = 60_000) -> list[int]:
    """All ids that captions use, in ascending order, start and end among them."""
    rng = Random(seed)
    texts = [caption(sample_scene(rng, everything=True), rng) for _ in range(captions)]
    words = " ".join([*BARE, *KINDS, *FILLERS])
    return sorted({START, END, *(token for text in [*texts, words] for token in token_ids(text))})


class CompactTokens:
    """Rows of a small embedding table for CLIP's ids; row 0 is for all tokens that are not trained."""

    def __init__(self, known: list[int]) -> None:
        self.known = known
        self._rows = np.zeros(END + 1, dtype=np.int64)
        self._rows[known] = np.arange(1, len(known) + 1)

    def __len__(self) -> int:
        return len(self.known) + 1

    def rows(self, texts: list[str]) -> np.ndarray:
        """Rows of prompts, N x 77."""
        return self._rows[np.array([padded(text) for text in texts])]

    def table(self, compact: np.ndarray) -> np.ndarray:
        """The full embedding table of a compact one."""
        return compact[self._rows]
