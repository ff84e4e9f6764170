"""Regular expressions for strangers' texts: each is linear, however the text is made.

A repetition without a bound is possessive, so that nothing is tried twice, and stands in an expression that begins at
one place: one that is searched for begins anew at each character, which makes n times n of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = [p for room in ("gateway", "adapters", "engine") for p in sorted((ROOT / room).rglob("*.py"))]
SEARCHES = {"search", "sub", "subn", "findall", "finditer", "split"}
ANCHORED = {"match", "fullmatch"}
OUR_TEXT = {
    "gateway/http/openapi.py": "the names of our own types and routes, and docstrings",
    "gateway/machine.py": "what the kernel says",
    "gateway/settings/": "the operator's settings",
    "gateway/models/folders.py": "names of a repository that the catalogue or the settings list",
    "gateway/residency/quantized_copies.py": "names of models",
}
"""Where no stranger's text comes."""
TOKENS = r"""[0-9]++[.][0-9]++|[^\s,.;:()\[\]{}<>|!?"“”„…\\_]++|[,.;\n]"""
LINEAR: dict[tuple[str, str], str] = {
    ("engine/backends/fake.py", r"\S++"): "what it begins with is found, to its end",
    ("engine/embedded/reading.py", TOKENS): "digits without a point are found by the second way, to their end",
}
"""Of file and pattern, why one that is searched for is linear all the same."""


def patterns() -> Iterator[tuple[str, str, str | bytes, set[str]]]:
    """File and place of each pattern, itself, and the methods that are called on it."""
    for file in FILES:
        name = file.relative_to(ROOT).as_posix()
        if name.startswith(tuple(OUR_TEXT)):
            continue
        if "re." not in (source := file.read_text()):
            continue
        nodes = list(ast.walk(ast.parse(source)))
        used: dict[str, set[str]] = {}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
        for node in nodes:
            match node:
                case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Call() as call) if _is_re(call, "compile"):
                    yield name, f"{name}:{call.lineno}", _text(call.args[0]), used.get(variable, set())
                case ast.Call(func=ast.Attribute(attr=method)) if _is_re(node, *SEARCHES, *ANCHORED):
                    yield name, f"{name}:{node.lineno}", _text(node.args[0]), {method}
                case _:
                    continue


def _is_re(call: ast.Call, *methods: str) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id="re"), attr=method):
            return method in methods
    return False


def _text(node: ast.expr) -> str | bytes:
    """A literal; what is put into an f-string counts as a word."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "word" for part in node.values)
    found = ast.literal_eval(node)
    assert isinstance(found, str | bytes)
    return found


def unbounded(parsed: Any, inside: bool = False) -> Iterator[str]:
    """What is wrong with each repetition that has no end."""
    for code, value in parsed:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            _, most, inner = value
            endless = most == codes.MAXREPEAT
            if endless and code is not codes.POSSESSIVE_REPEAT:
                yield "not possessive"
            if endless and inside and code is not codes.POSSESSIVE_REPEAT:
                yield "nested"
            yield from unbounded(inner, inside or endless)
        elif code is codes.SUBPATTERN:
            yield from unbounded(value[3], inside)
        elif code is codes.BRANCH:
            for branch in value[1]:
                yield from unbounded(branch, inside)
        elif code in (codes.ATOMIC_GROUP,):
            yield from unbounded(value, inside)
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            yield from unbounded(value[1], inside)


def has_endless(parsed: Any) -> bool:
    return any(
        (code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT) and value[1] == codes.MAXREPEAT)
        or (code is codes.SUBPATTERN and has_endless(value[3]))
        or (code is codes.BRANCH and any(map(has_endless, value[1])))
        or (code is codes.ATOMIC_GROUP and has_endless(value))
        for code, value in parsed
    )


FOUND = list(patterns())


@pytest.mark.parametrize(("name", "place", "pattern", "used"), FOUND, ids=[place for _, place, _, _ in FOUND])
def test_regular_expressions_all_run_in_linear_time(
    name: str, place: str, pattern: str | bytes, used: set[str]
) -> None:
    parsed = parser.parse(pattern)
    assert list(unbounded(parsed)) == [], f"{place}: a repetition without an end has to be possessive, as in [a-z]*+"
    if has_endless(parsed) and used & SEARCHES:
        assert (name, pattern) in LINEAR, f"{place}: {pattern!r} is searched for; find its beginning with str.find"


def test_regular_expression_check_finds_all_patterns_and_the_slow_ones() -> None:
    assert len(FOUND) > 40
    assert {name for name, _ in LINEAR} <= {name for name, *_ in FOUND}
    for slow in (r"(a+)+$", r"<[^>]*>", r"(?:a|b*)c", r"x\s+y"):
        assert list(unbounded(parser.parse(slow)))
    assert not list(unbounded(parser.parse(rb"a{0,9}[^b]*+")))


def test_regular_expressions_are_all_constants_visible_to_the_pattern_check() -> None:
    """Compiled at the top of a file under a name, or given as it is to a function of `re`."""
    for file in FILES:
        seen = sum(place.startswith(f"{file.relative_to(ROOT).as_posix()}:") for _, place, _, _ in FOUND)
        if file.relative_to(ROOT).as_posix().startswith(tuple(OUR_TEXT)):
            continue
        calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        made = [n for n in calls if _is_re(n, "compile", *SEARCHES, *ANCHORED)]
        assert len(made) == seen, file
