"""CLIP's tokenizer, compared with the tokenizers library on the same vocabulary."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from engine.prompts.cleaning import clean
from engine.prompts.tokenizer import COMMA, END, START, ClipTokenizer, clip_tokenizer
from engine.prompts.vocabulary import FILE, read_merges

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@cache
def reference() -> Tokenizer:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [*map(chr, printable), *(chr(256 + number) for number in range(256 - len(printable)))]
    merges = list(read_merges())
    symbols = [*characters, *(f"{one}</w>" for one in characters), *("".join(pair) for pair in merges)]
    found = Tokenizer(
        models.BPE({symbol: token for token, symbol in enumerate(symbols)}, merges, end_of_word_suffix="</w>")
    )
    found.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return found


def test_vocabulary_is_that_of_clip() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SHA256
    assert (FILE.parent / "LICENSE").read_text().startswith("Copyright")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("a photo of an astronaut riding a horse", [320, 1125, 539, 550, 18376, 6765, 320, 4558]),
        (",", [COMMA]),
        ("A  Cat\n,", [320, 2368, COMMA]),
        ("<|startoftext|>cat<|endoftext|>", [START, 2368, END]),
    ],
)
def test_tokens_are_those_of_clip(text: str, tokens: list[int]) -> None:
    assert clip_tokenizer().encode(text) == tokens


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Don’t “move”", 'don\'t "move"'),
        ("ＬＯＵＤ　noise", "loud noise"),
        ("ﬁne &amp; &hellip; &#x2019; &bogus; & &", "fine & … ' &bogus; & &"),
        ("<b>&amp;</b>\n&amp;", "<b>&amp;</b> &"),
        ("e\u0301\u200b", "é\u200b"),
        ("a\0b\ud800", "ab\ufffd"),
        (" a\r\n\tb ", "a b"),
    ],
)
def test_text_is_cleaned_as_by_ftfy(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_long_runs_of_combining_characters_are_kept() -> None:
    text = "\u0301\u0316" * 5000
    assert len(clean(text)) == len(text)


@given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Co", "Cc"], max_codepoint=0x1FFFF), max_size=40))
def test_tokens_agree_with_the_tokenizers_library(text: str) -> None:
    cleaned = clean(text)
    if unicodedata.normalize("NFC", cleaned).lower() == cleaned and "<|" not in cleaned:
        assert clip_tokenizer().encode(text) == reference().encode(cleaned).ids


@given(st.text("abcdefghijklmnoprstuvw'!. 1-", max_size=60) | st.text("aeinst", max_size=200))
def test_tokens_of_long_words_agree_with_the_tokenizers_library(text: str) -> None:
    assert clip_tokenizer().encode(text) == reference().encode(re.sub(r"\s+", " ", text).strip()).ids


@pytest.mark.parametrize("unit", ["a", "ab", "!", "\U0001f600", "'s", "<", "<|", "&", "&amp;", "\u0301", "1", "é", " "])
def test_hostile_text_is_tokenized(unit: str) -> None:
    text = (unit * 4_000)[:4_000]
    assert len(ClipTokenizer.encode(clip_tokenizer(), text)) <= 4 * len(text)
