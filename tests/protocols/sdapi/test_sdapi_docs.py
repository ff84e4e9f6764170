"""docs/sdapi.md names every route and every field of /sdapi/v1, and each field is looked at by some test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.sdapi import ADAPTER
from adapters.sdapi.control import Unit
from adapters.sdapi.protocol import PREFIX
from adapters.sdapi.request_schemas import ExtraBatch, ExtraSingle, Img2Img, LoraItem, Txt2Img
from adapters.sdapi.values import Ignored

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "sdapi.md").read_text()
WORDS = set(re.findall(r"[\w*]+", PAGE))
MODELS = (Txt2Img, Img2Img, ExtraSingle, ExtraBatch, LoraItem, Unit)
FIELDS = {name: info.annotation for model in MODELS for name, info in model.model_fields.items()}
TESTS = [*(ROOT / "tests").rglob("*sdapi*.py"), *(ROOT / "tests" / "golden" / "sdapi").glob("*.json")]
TEST_CODE = "\n".join(file.read_text() for file in TESTS)
TESTED = set(re.findall(r"\w+", TEST_CODE))


def is_named(field: str) -> bool:
    starts = {word[:-1] for word in WORDS if word.endswith("_*")}
    return field in WORDS or any(field.startswith(start) for start in starts)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_field_is_in_docs_and_in_a_test(field: str) -> None:
    assert is_named(field), "docs/sdapi.md says nothing of it"
    assert field in TESTED or FIELDS[field] is Ignored


@pytest.mark.parametrize("path", sorted({route.path for route in ADAPTER.routes}))
def test_a_route_is_in_docs_and_in_a_test(path: str) -> None:
    path = path.removeprefix(PREFIX)
    assert path in PAGE or f"{path.rpartition('/')[0]}/*" in PAGE
    assert f'"{path[1:]}"' in TEST_CODE or f"{path}" in TEST_CODE


def test_docs_name_no_unknown_field() -> None:
    rows = re.findall(r"^\| ([a-z][a-zA-Z0-9_, .*]+?) \|", PAGE, re.MULTILINE)
    names = {name for row in rows for name in re.split(r", (?:or )?| x | or ", row)}
    known = {*FIELDS, "field", "route", "override_settings.sd_model_checkpoint"}
    assert not [name for name in names - known if not name.endswith("*")]
