"""Weights of the parts of a prompt, compared with the rules of A1111's documentation and a direct simulation."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.attention import MOST_BRACKETS, Part, parse_attention
from engine.prompts.errors import PromptError

UNITS = ("a", " b", "(", "[", ")", "]", ":", ":1.3)", ": -.5 )", "\\", "\\(", "BREAK", " BREAK ", ":0)", "\n", "é", "_")


def pairs(text: str) -> list[tuple[str, float]]:
    return [(part.text, part.weight) for part in parse_attention(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [("", 1.0)]),
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("\\(literal\\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("a\\b\\\\c", [("ab\\c", 1.0)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("[a:1.3]", [("a:1.3", 1 / 1.1)]),
        ("a:1.3)", [("a:1.3)", 1.0)]),
        ("(a: -1.5 )", [("a", -1.5)]),
        ("(a) [b", [("a", 1.1), (" ", 1.0), ("b", 1 / 1.1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.1 * (1 / 1.1)), (" c", 1 / 1.1)]),
    ],
)
def test_attention_weights_follow_the_brackets(text: str, parts: list[tuple[str, float]]) -> None:
    assert pairs(text) == parts


def test_attention_weights_of_nested_brackets_multiply() -> None:
    parts = pairs("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")
    assert [text for text, _ in parts] == ["a ", "house", " ", "on", " a ", "hill", ", sun, ", "sky", "."]
    assert [weight for _, weight in parts] == pytest.approx([1, 1.573, 1.1, 1, 1.1, 0.55, 1.1, 1.4641, 1.1])


def test_break_is_a_part_of_its_own_and_takes_the_white_space_around_it() -> None:
    parts = parse_attention("a \n BREAK  b BREAKING c")
    assert parts == [Part("a", 1.0), Part("BREAK", -1.0), Part("b BREAKING c", 1.0)]
    assert [part.is_break for part in parts] == [False, True, False]


def test_break_inside_a_weighted_bracket_is_a_word() -> None:
    assert not any(part.is_break for part in parse_attention("(a BREAK b:1.2)"))
    assert any(part.is_break for part in parse_attention("(a BREAK b:1.0)"))


@pytest.mark.parametrize("text", ["(a:1.2.3)", "(a:...)", f"(a:{'9' * 400})", "(" * 40 + "a" + f":{'9' * 20})" * 30])
def test_attention_weight_that_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="weight"):
        parse_attention(text)


def test_brackets_beyond_the_limit_do_not_act() -> None:
    (deep,) = parse_attention("(" * 5000 + "a")
    assert deep == parse_attention("(" * MOST_BRACKETS + "a")[0]


@pytest.mark.parametrize(
    "unit", ["(", "[", "(a", "[a", "(a)", "a)", ":", "\\", ": ", "BREAK ", "(a:1.1", ":1", " ", "é"]
)
def test_attention_of_a_hostile_text_is_read_within_its_limits(unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    assert sum(len(part.text) for part in parse_attention(text)) <= len(text) * 2
    parse_attention(text + ")" * 3_000)


SCANNER = re.compile(
    r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:"
)  # the tokens of A1111's notation, in the order of its alternatives


def simulated(text: str) -> list[tuple[str, float]]:
    """The same rules step by step, in quadratic time: each closing bracket multiplies the parts since its partner."""
    parts: list[list[object]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(begin: int, factor: float) -> None:
        for part in parts[begin:]:
            part[1] *= factor  # type: ignore[operator]

    for token in SCANNER.finditer(text):
        word, number = token[0], token[1]
        if word.startswith("\\"):
            parts.append([word[1:], 1.0])
        elif word in opened:
            opened[word].append(len(parts))
        elif number is not None and opened["("]:
            multiply(opened["("].pop(), float(number))
        elif word == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif word == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        else:
            for index, piece in enumerate(re.split(r"\s*\bBREAK\b\s*", word)):
                parts.extend([["BREAK", -1.0], [piece, 1.0]] if index else [[piece, 1.0]])
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        for begin in opened[kind]:
            multiply(begin, factor)
    merged: list[list[object]] = []
    for text_, weight in parts or [["", 1.0]]:
        if merged and merged[-1][1] == weight:
            merged[-1][0] += text_  # type: ignore[operator]
        else:
            merged.append([text_, weight])
    return [(str(text_), float(weight)) for text_, weight in merged]  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(UNITS), max_size=30).map("".join))
def test_attention_agrees_with_a_simulation_of_its_rules(text: str) -> None:
    assert pairs(text) == simulated(text)
