"""Prompts joined by AND."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.composition import split_composition
from engine.prompts.errors import PromptError

WEIGHTED = re.compile(r"^((?:\s|.)*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$")


def pairs(text: str) -> list[tuple[str, float]]:
    return [(part.text, part.weight) for part in split_composition(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [("", 1.0)]),
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog", [("a cat", 1.0), (" a dog", 1.0)]),
        ("a cat :1.2AND a dog : -0.5\n", [("a cat :1.2AND a dog", -0.5)]),
        ("a cat :1.2 AND a dog : -0.5\n", [("a cat", 1.2), (" a dog", -0.5)]),
        ("a BAND, SAND and ANDES", [("a BAND, SAND and ANDES", 1.0)]),
        ("(a:1.2)", [("(a:1.2)", 1.0)]),
        ("a:1:2.", [("a:1", 2.0)]),
        ("a:1.2.3", [("a:1.2.3", 1.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
        (":2", [("", 2.0)]),
    ],
)
def test_composition_is_split_at_the_word_and_with_weights(text: str, parts: list[tuple[str, float]]) -> None:
    assert pairs(text) == parts


@given(st.lists(st.sampled_from(("a", " ", "\n", ":", "1", ".5", "-", "+", "AND", " AND ", "_")), max_size=14))
def test_composition_agrees_with_the_notation_as_a_regular_expression(units: list[str]) -> None:
    text = "".join(units)
    expected = []
    for prompt in re.split(r"\bAND\b", text):
        found = WEIGHTED.search(prompt)
        assert found is not None
        expected.append((found[1], 1.0 if found[2] is None else float(found[2])))
    assert pairs(text) == expected


@pytest.mark.parametrize("unit", ["AND", "AND ", " AND", ":", " ", ":1 ", "1", "-", "_AND"])
def test_composition_of_a_hostile_text_is_split(unit: str) -> None:
    text = (unit * 70_000)[:70_000]
    if unit != "1":
        split_composition(text + ":1")


def test_composition_weight_that_is_too_large_is_refused() -> None:
    with pytest.raises(PromptError, match="too large"):
        split_composition("a:" + "9" * 70_000)
