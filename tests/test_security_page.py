"""What docs/security.md says is shown is shown by something that exists, and no requirement is left out."""

from __future__ import annotations

import ast
import re

from tests.live import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
SECURITY = (*range(1, 16), *range(20, 27), *range(30, 37), *range(40, 45))
RELIABILITY = range(1, 22)


def test_every_requirement_has_its_row() -> None:
    rows = re.findall(r"^\| ([SR]-\d\d) \|", PAGE, re.MULTILINE)
    assert rows == [f"S-{n:02}" for n in SECURITY] + [f"R-{n:02}" for n in RELIABILITY]


def test_what_is_named_as_proof_is_there() -> None:
    modules = [*(ROOT / "tests").glob("test_*.py")]
    there = {module.stem for module in modules}
    for module in modules:
        nodes = ast.walk(ast.parse(module.read_text("utf-8")))
        there |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert set(re.findall(r"`(test_\w+)`", PAGE)) - there == set()
    benchmarks = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    assert set(re.findall(r"`benchmarks\.(\w+)`", PAGE)) - benchmarks == set()
