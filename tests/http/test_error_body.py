"""The bodies of errors: 1 KiB at most, whatever is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.http.error_body import MOST_BYTES, bounded

TEXTS = st.text(max_size=2000) | st.sampled_from(["x" * 5000, "é" * 900, "\U0001f600" * 900, "\ud800", "\0" * 300])


def encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def test_error_body_within_the_limit_is_unchanged() -> None:
    body = {"error": {"message": "No.", "models": ["a", "b"]}, "errors": [{"loc": ["body", "x"]}], "n": 1, "p": None}
    assert bounded(body) == body


def test_error_list_of_names_is_cut_and_says_how_many_more_there_are() -> None:
    names = [f"name-{i:04}" for i in range(1000)]
    *told, more = bounded({"error": "No.", "names": names})["names"]
    assert told == names[: len(told)]
    assert more == f"and {1000 - len(told)} more"
    assert len(told) > 70


def test_error_details_are_cut_at_the_end_and_stay_valid() -> None:
    found = [{"loc": ["body", f"field{i}"], "msg": "is not " + "so " * 20, "type": "t"} for i in range(50)]
    told = bounded({"detail": found, "error": "No."})["detail"]
    assert told == found[: len(told)]
    assert len(told) > 5


@settings(deadline=None)
@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=40), st.dictionaries(st.text(max_size=40), TEXTS, max_size=3))
def test_error_body_is_never_larger_than_a_kibibyte(
    message: str, other: str, names: list[str], details: dict[str, str]
) -> None:
    body = {"error": message, "detail": message, "errors": message, "names": names, "other": [{"msg": other}] * 20}
    assert len(encoded(bounded({**body, "details": details}))) <= MOST_BYTES


@pytest.mark.parametrize("length", [64, 65, 5000])
def test_parameter_name_in_an_error_is_cut_to_64_characters(length: int) -> None:
    assert len(InvalidRequest("No.", param="x" * length).param or "") == 64
