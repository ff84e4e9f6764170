"""What files say, cleaned."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.clean_text import LINE_CHARS, NUMBER_MOST, number, one_line, whole


@given(st.text(st.characters(), max_size=50) | st.sampled_from(["\ud800", "\udfff\ud83d", "a\0b", "\u2028\x85\x1b[0m"]))
def test_metadata_cleaned_text_can_be_written_and_stored(text: str) -> None:
    for clean in (whole(text), one_line(text)):
        assert clean.encode().decode() == clean
        assert "\0" not in clean
    assert one_line(text).isprintable()
    assert one_line(text) == one_line(one_line(text))


def test_metadata_text_keeps_lines_and_complete_characters() -> None:
    text = "a\nb\té\U0001f600"
    assert whole(text) == text
    assert whole("\ud83d\ude00") == "\U0001f600"
    assert whole("a\ud800b\0") == "a\ufffdb\ufffd"


def test_metadata_line_is_bounded_and_non_text_is_empty() -> None:
    assert one_line("x" * 10**6) == "x" * LINE_CHARS
    assert one_line("a\nb\x1bc\ud800") == "a b c"
    assert [one_line(value) for value in (None, 5, ["a"], {}, b"a")] == [""] * 5


def test_metadata_number_must_be_finite_and_bounded() -> None:
    assert [number(value) for value in (0.7, -1, 0)] == [0.7, -1.0, 0.0]
    for value in (math.nan, math.inf, -math.inf, 10**400, NUMBER_MOST * 2, True, "1", None, json.loads("1e999")):
        assert number(value) is None
