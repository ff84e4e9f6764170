"""The studio's JavaScript modules: no import circle, and the page preloads each of its modules."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

STUDIO = Path(__file__).parents[2] / "adapters" / "web" / "studio"
IMPORT = re.compile(r'^import .*? from "\./([\w.]+)";$', re.MULTILINE | re.DOTALL)
IMPORTS = {file.name: set(IMPORT.findall(file.read_text())) for file in STUDIO.glob("*.js")}


def imported_by(name: str) -> set[str]:
    return {name}.union(*(imported_by(other) for other in IMPORTS[name]))


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter(IMPORTS).prepare()


def test_studio_page_preloads_the_modules_its_main_script_imports() -> None:
    preloaded = set(re.findall(r'rel="modulepreload" href="/studio/([\w.]+)"', (STUDIO / "page.html").read_text()))
    assert preloaded <= imported_by("main.js")
    assert {"keep.js", "images.js", "view.js"} <= preloaded
