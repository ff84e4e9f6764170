"""A1111's tags and hashes: what its own expressions find, in one walk over any text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.sdapi.prompt_tags import LORAS_MOST, split_tags, tags, without_hash
from gateway.clean_text import without_markup
from gateway.errors import InvalidRequest
from gateway.images.infotext import parse
from tests.support.hostile import REPEATS, hostile

A1111_TAG = re.compile(r"<(\w+):([^>]+)>")
"""Source: A1111 1.10.1 modules/extra_networks.py, re_extra_net."""
A1111_HASH = re.compile(r" \[[^\]]*\]$")
MARKUP = re.compile(r"<[^>]*>")
FREEZE_S = 3.0
"""A million characters take tens of milliseconds; what begins anew at each of them takes hours."""


@settings(max_examples=400, deadline=None)
@given(st.text("<>:aA1 \n_é", max_size=30))
def test_lora_tags_match_a1111s_regular_expression(prompt: str) -> None:
    assert list(tags(prompt)) == [(m.start(), m.end(), m[1], m[2]) for m in A1111_TAG.finditer(prompt)]
    assert split_tags(prompt)[0] == A1111_TAG.sub("", prompt)


@settings(max_examples=400, deadline=None)
@given(st.text(" []a\n", max_size=20))
def test_a_checkpoint_title_loses_the_hash_that_a1111s_regular_expression_matches(title: str) -> None:
    assert without_hash(title) == A1111_HASH.sub("", title)


@settings(max_examples=300, deadline=None)
@given(st.text("<>ab\n", max_size=20))
def test_markup_is_removed_as_by_its_regular_expression(text: str) -> None:
    assert without_markup(text) == MARKUP.sub("", text)


@pytest.mark.parametrize("unit", [*REPEATS, "<a:>", "<a:b>", "<lora:a", " [a]", '": "\\', ':"a,', "a:,"])
def test_a_prompt_of_a_million_characters_is_scanned_once(unit: str) -> None:
    text = hostile(unit)
    began = time.process_time()
    list(tags(text))
    without_hash(text)
    without_hash(text + "]")
    without_markup(text)
    parse(text)
    assert time.process_time() - began < FREEZE_S


def test_a_prompt_may_call_a_limited_number_of_loras() -> None:
    prompt, loras = split_tags("a" + "<lora:x:0.5>" * LORAS_MOST + "b")
    assert (prompt, len(loras), loras[0].scale) == ("ab", LORAS_MOST, 0.5)
    with pytest.raises(InvalidRequest, match="at most") as caught:
        split_tags("<lora:x>" * (LORAS_MOST + 1))
    assert caught.value.param == "prompt"
    assert split_tags("<hypernet:x>" * 5000) == ("", ())
