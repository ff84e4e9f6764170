"""The pages point to what is there: files, folders and tests that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.infinite_image_browsing import VERSION

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
TESTS = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")}
NAMES = {name for text in TESTS.values() for name in re.findall(r"def (test_\w+)\(", text)}

REQUIREMENTS = [
    *(f"S-{n:02}" for n in (*range(1, 16), *range(20, 27), *range(30, 37), *range(40, 45))),
    *(f"R-{n:02}" for n in range(1, 22)),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documentation_page_references_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if ":" not in link]
    paths = re.findall(r"`((?:gateway|engine|adapters|tools|benchmarks|examples|tests)/[\w/.]+)`", text)
    named = set(re.findall(r"\btest_\w+(?:\.py)?", text))
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [name for name in named if name not in NAMES | TESTS.keys() and f"{name}.py" not in TESTS] == []


def test_documentation_names_client_programs_by_the_version_tested() -> None:
    """README's claims and docs/openai.md's table of clients; what is not run is said to be tried as its code asks."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    claims = readme[readme.index("**Unmodified clients work.**") : readme.index("**Every request is a job**")]
    table = (ROOT / "docs" / "openai.md").read_text(encoding="utf-8").partition("## Clients")[2]
    rows = [row for row in table.splitlines() if row.startswith("|") and "as recorded" not in row]
    run = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + "".join(TESTS.values())
    pinned = set(re.findall(r"[=@](\d+\.\d+(?:\.\d+)?)\b", run))
    pinned.add(VERSION)
    for text in (claims, *rows):
        assert set(re.findall(r"\b\d+\.\d+(?:\.\d+)?\b", text)) <= pinned
    for name in re.findall(r'"([\w-]+)==', run):
        if f"`{name}` " in claims:
            assert any(f"`{name}` {version}" in claims for version in pinned), name
    assert "Krita" not in readme


def test_security_requirements_each_have_a_row_naming_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([SR]-\d\d) \|.*\|(.*)\|$", page, re.MULTILINE)
    assert [number for number, _ in rows] == REQUIREMENTS
    assert [number for number, proof in rows if not re.search(r"`(test_|benchmarks\.)", proof)] == []
    folder = ROOT / "benchmarks"
    measured = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__main__.py")}
    assert set(re.findall(r"`benchmarks\.(\w+)`", page)) <= measured


def test_page_of_benchmarks_has_a_row_for_each() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    folder = ROOT / "benchmarks"
    names = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/__main__.py")}
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(names - {"__init__"})
