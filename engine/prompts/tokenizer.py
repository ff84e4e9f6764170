"""CLIP's tokenizer: from a text to the tokens of its byte pair encoding, with the vocabulary in the package.

A text is cleaned and cut into words: special tokens, endings such as 's, runs of letters, single digits, and runs of
other characters. The bytes of each word are merged pair by pair, the pair of the highest rank first, everywhere in the
word. It takes n log n time for a word of n bytes.

Source: openai/CLIP clip/simple_tokenizer.py; transformers models/clip/tokenization_clip.py.
"""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise

from engine.prompts.cleaning import clean
from engine.prompts.vocabulary import read_merges

BYTES = 256
FIRST_MERGED = 2 * BYTES
START = 49_406
"""Start of a text."""
END = 49_407
"""End of a text; text encoder 1 also pads with it."""
COMMA = 267
"""A comma at the end of a word."""

_SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
_ENDINGS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")
_CACHED_WORDS = 16_384
_CACHED_CHARS = 40
_OTHER, _LETTER, _NUMBER, _BLANK = range(4)


class ClipTokenizer:
    """Tokenizer of all text encoders of Stable Diffusion 1, 2 and XL."""

    def __init__(self) -> None:
        self._bytes = _byte_order()
        self._merged = _read_pairs()
        self._short_word = lru_cache(_CACHED_WORDS)(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without those of its start and end."""
        tokens: list[int] = []
        for word in words(clean(text)):
            special = _SPECIAL.get(word)
            if special is not None:
                tokens.append(special)
            else:
                tokens.extend(self._short_word(word) if len(word) <= _CACHED_CHARS else self._encode_word(word))
        return tokens

    def _encode_word(self, word: str) -> list[int]:
        symbols = [self._bytes[byte] for byte in word.encode("utf-8", "replace")]
        symbols[-1] += BYTES
        return _merge(symbols, self._merged)


@cache
def clip_tokenizer() -> ClipTokenizer:
    """The tokenizer, loaded once in a process."""
    return ClipTokenizer()


def words(text: str) -> Iterator[str]:
    """Words of a cleaned text."""
    position = 0
    while position < len(text):
        kind = _kind(text[position])
        begin = position
        position += 1
        if kind == _BLANK:
            continue
        known = next((known for known in _beginning(text, begin) if text.startswith(known, begin)), None)
        if known is not None:
            position = begin + len(known)
        elif kind != _NUMBER:
            while position < len(text) and _kind(text[position]) == kind:
                position += 1
        yield text[begin:position]


def _beginning(text: str, position: int) -> tuple[str, ...]:
    """Words that a character may begin besides those of its kind."""
    if text[position] == "'":
        return _ENDINGS
    return tuple(_SPECIAL) if text[position] == "<" else ()


@lru_cache(4096)
def _kind(character: str) -> int:
    if character.isspace():
        return _BLANK
    if character.isalpha():
        return _LETTER
    return _NUMBER if unicodedata.category(character).startswith("N") else _OTHER


def _printable_bytes() -> list[int]:
    return [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]


def _byte_order() -> list[int]:
    """Token of each byte: those that are printable in Latin-1 come first."""
    printable = _printable_bytes()
    rest = [byte for byte in range(BYTES) if byte not in printable]
    order = [0] * BYTES
    for token, byte in enumerate((*printable, *rest)):
        order[byte] = token
    return order


def _read_pairs() -> dict[tuple[int, int], int]:
    """Merged token by the pair of its tokens. Merged tokens have the order of their ranks."""
    printable = _printable_bytes()
    characters = [*map(chr, printable), *(chr(BYTES + number) for number in range(BYTES - len(printable)))]
    tokens = {character: token for token, character in enumerate(characters)}
    tokens |= {f"{character}</w>": BYTES + token for token, character in enumerate(characters)}
    pairs = {}
    for token, (left, right) in enumerate(read_merges(), FIRST_MERGED):
        pairs[tokens[left], tokens[right]] = token
        tokens[left + right] = token
    return pairs


def _merge(symbols: list[int], merged: dict[tuple[int, int], int]) -> list[int]:
    """The symbols with all pairs merged, lowest token first, from left to right. Changes `symbols`."""
    count = len(symbols)
    following, previous = list(range(1, count + 1)), list(range(-1, count - 1))
    waiting = [(merged[pair], left) for left, pair in enumerate(pairwise(symbols)) if pair in merged]
    heapq.heapify(waiting)
    gone = -1
    while waiting:
        token = waiting[0][0]
        changed: list[int] = []
        while waiting and waiting[0][0] == token:
            _, left = heapq.heappop(waiting)
            right = following[left]
            if right == count or merged.get((symbols[left], symbols[right])) != token:
                continue  # another merge has taken one of the two
            symbols[left], symbols[right] = token, gone
            following[left] = following[right]
            if following[right] < count:
                previous[following[right]] = left
            changed += (left, previous[left])
        for left in changed:
            if left >= 0 and symbols[left] != gone and (right := following[left]) < count:
                pair = (symbols[left], symbols[right])
                if pair in merged:
                    heapq.heappush(waiting, (merged[pair], left))
    return [symbol for symbol in symbols if symbol != gone]
