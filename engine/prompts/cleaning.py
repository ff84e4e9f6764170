"""Cleaning of prompts before the tokenizer reads them: straight quotation marks, usual widths, one blank, lower case.

A1111's tokenizers clean texts with the library ftfy. This does what of it changes texts that people write: entities of
HTML, ligatures, full-width characters, curly quotation marks, control characters, NFC. Texts that were decoded with a
wrong encoding are not repaired.

Source: ftfy 6.1 fixes.py, chardata.py; transformers 4.30 models/clip/tokenization_clip.py `_tokenize`.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator, Mapping

_LIGATURES = "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬅﬆ"
_SINGLE_QUOTES = "ʼ‘’‚‛"
_DOUBLE_QUOTES = "“”„‟"
_WIDTHS = range(0xFF01, 0xFFF0)
_CONTROLS = (*range(9), 11, *range(14, 32), 127, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD))
_SURROGATES = range(0xD800, 0xE000)
_ENTITY_CHARS = 24
_MOST_MARKS = 30
"""Combining characters in a row that are normalised together, as in Unicode's stream-safe format: putting them in
order takes time quadratic in their number."""


def _replacements() -> Mapping[int, str]:
    quotes = dict.fromkeys(map(ord, _SINGLE_QUOTES), "'") | dict.fromkeys(map(ord, _DOUBLE_QUOTES), '"')
    codes = (*map(ord, _LIGATURES), *_WIDTHS)
    found = {code: unicodedata.normalize("NFKC", chr(code)).translate(quotes) for code in codes}
    return found | quotes | dict.fromkeys(_CONTROLS, "") | dict.fromkeys(_SURROGATES, "\ufffd") | {0x3000: " "}


_REPLACEMENTS = _replacements()


def clean(text: str) -> str:
    """The text as the tokenizer reads it; linear in its length."""
    if "&" in text:
        text = "\n".join(line if "<" in line else "".join(_unescaped(line)) for line in text.split("\n"))
    text = text.translate(_REPLACEMENTS)
    if not text.isascii():
        text = "".join(unicodedata.normalize("NFC", piece) for piece in _pieces(text))
    return " ".join(text.split()).lower()


def _unescaped(text: str) -> Iterator[str]:
    """The text with the characters that its entities of HTML name; an entity ends in a semicolon."""
    position = 0
    while (begin := text.find("&", position)) >= 0:
        yield text[position:begin]
        end = text.find(";", begin, begin + _ENTITY_CHARS + 2) + 1
        entity = text[begin:end] if end else "&"
        named = html.unescape(entity) if len(entity) > 1 else entity
        yield entity if ";" in named else named
        position = begin + len(entity)
    yield text[position:]


def _pieces(text: str) -> Iterator[str]:
    """Pieces with at most _MOST_MARKS combining characters in a row."""
    begin = marks = 0
    for position, character in enumerate(text):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MOST_MARKS:
            yield text[begin:position]
            begin, marks = position, 1
    yield text[begin:]
