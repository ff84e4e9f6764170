"""Prompt editing and alternation, compared with schedules that A1111's grammar gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.editing import parse_schedule, prompt_schedule

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "stable_diffusion" / "prompt_schedules.json").read_text(encoding="utf-8")
)
UNITS = ("a", "[", "]", "(", ")", ":", "|", ":2]", ":0.5]", " ", "\\", "[a", "|b]", "\n")


def test_schedules_are_those_that_the_grammar_of_a1111_gives() -> None:
    for case in GOLDEN["cases"]:
        found = [prompt_schedule(case["text"], GOLDEN["steps"], **one) for one in GOLDEN["passes"]]
        assert json.loads(json.dumps(found)) in case["outcomes"], case["text"]


def test_golden_schedules_are_mostly_unambiguous_and_often_edited() -> None:
    cases = GOLDEN["cases"]
    assert sum(len(case["outcomes"]) == 1 for case in cases) > 0.75 * len(cases)
    assert sum(len(case["outcomes"][0][0]) > 1 for case in cases) > 50


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a:b:1.5]", [(10, "a")]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[a:b:-1e999]", [(10, "b")]),
    ],
)
def test_editing_changes_the_text_after_its_step(text: str, schedule: list[tuple[int, str]]) -> None:
    assert prompt_schedule(text, 10) == schedule


def test_editing_in_the_second_pass_counts_fractions_from_one_and_steps_from_the_first_pass() -> None:
    text = "[a:b:1.5] [c:d:15] [e:f:.5]"
    assert prompt_schedule(text, 10, hires_steps=20) == [(5, "a c f"), (10, "a d f"), (20, "b d f")]
    assert prompt_schedule(text, 10, hires_steps=20, old=True) == [(1, "a c e"), (5, "b c e"), (10, "b c f")]


def test_alternation_takes_another_option_each_step() -> None:
    assert [text for _, text in prompt_schedule("[fe|||]male", 5)] == ["female", "male", "male", "male", "female"]


def test_text_at_a_step_is_that_up_to_and_including_its_end_and_later_the_first() -> None:
    schedule = parse_schedule("[a:b:3]", 10)
    assert [schedule.text_at(step) for step in (0, 3, 4, 10, 11)] == ["a", "a", "b", "b", "a"]


@pytest.mark.parametrize(
    "unit",
    ["[", "(", "]", ":", "|", "[a", "[:", "[a:", "[a|", "([", "[a|b]", "[a:b:3]", "[:1]", "\\", "\\[", " ", "(a:", "a"],
)
def test_hostile_text_is_edited_without_recursion_or_growth(unit: str) -> None:
    text = (unit * 5_000)[:5_000]
    for hostile in (text, text + "]" * 1_500, text + "|]" * 1_500, text + ":1]" * 1_500, text + ":1)" * 1_500):
        schedule = parse_schedule(hostile, 3)
        assert len(schedule.ends) <= 3
        assert all(len(found) <= len(hostile) for _, found in schedule.texts())


@given(st.lists(st.sampled_from(UNITS), max_size=40).map("".join))
def test_text_without_valid_editing_is_left_as_it_is(text: str) -> None:
    schedule = parse_schedule(text, 4)
    assert all(set(found) <= set(text) and len(found) <= len(text) for _, found in schedule.texts())
    if ":" not in text and "|" not in text:
        assert [found for _, found in schedule.texts()] == [text]
