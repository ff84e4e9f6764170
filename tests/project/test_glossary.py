"""Retired words are no names of types, functions or files; docs/glossary.md has what took their places."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("gateway", "adapters", "engine")
RETIRED_NAMES = {
    *("Hub", "Places", "Line", "KeptOrder", "Turns", "House", "Coming", "ModelComing", "Wanted", "Held", "Look"),
    *("Sketch", "Sitting", "Observer", "Painter", "Easel", "Wardrobe"),
    *("wear", "beginning", "swapped", "straight_on", "named_as_sent", "hear", "tell", "paint"),
    *("Translated", "Tasks", "RequestIds", "Seen", "seen", "kept"),
}
RETIRED_FILES = {
    *("hub", "places", "line", "kept_order", "turns", "house", "coming", "painter", "sitting", "swapped"),
    *("runner", "planning", "recognise", "substitutes", "families", "told", "kept", "said", "start", "begun"),
}


def named(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno


def test_no_type_function_or_file_has_a_retired_name() -> None:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            assert file.stem not in RETIRED_FILES, file
            assert not RETIRED_FILES & {part.name for part in file.relative_to(ROOT).parents}, file
            found = [(name, line) for name, line in named(ast.parse(file.read_text())) if name in RETIRED_NAMES]
            assert found == [], f"{file}: docs/glossary.md has the words that took their places"
            assert not any(name.endswith("Painter") for name, _ in named(ast.parse(file.read_text()))), file


def test_docstrings_name_no_removed_type() -> None:
    gone = re.compile(r"\b(ModelComing|KeptOrder|Wardrobe|Easel|HouseOptions|\w+Painter)\b")
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            assert gone.findall(file.read_text()) == [], file


def test_the_glossary_names_each_retired_word() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    assert {name for name in RETIRED_NAMES if f"`{name}`" not in text} == set()


def test_gateway_and_engine_name_no_type_or_function_after_pictures() -> None:
    for room in ("gateway", "engine"):
        for file in sorted((ROOT / room).rglob("*.py")):
            assert [name for name, _ in named(ast.parse(file.read_text())) if "picture" in name.lower()] == [], file


def test_engine_identifiers_contain_no_retired_word() -> None:
    """Variables, attributes, parameters and keywords, by the words that they are made of."""
    retired = {"painter", "painted", "observer", "sketch", "sitting", "easel", "wardrobe", "worn", "paint", "doom"}
    for file in sorted((ROOT / "engine").rglob("*.py")):
        tree = ast.parse(file.read_text())
        nodes = list(ast.walk(tree))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {node.arg for node in nodes if isinstance(node, ast.arg | ast.keyword) and node.arg}
        names |= {name for name, _ in named(tree)}
        assert {name for name in names if retired & set(name.lower().split("_"))} == set(), file
