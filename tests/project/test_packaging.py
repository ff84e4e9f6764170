"""What is installed is what pyproject.toml says, on every road."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?==([^\s;]+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


def test_every_dependency_is_pinned_exactly() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    groups = [project["dependencies"], *extras, *PROJECT["dependency-groups"].values()]
    for line in (line for group in groups for line in group):
        assert pins([line]), f"{line} is not pinned"


def test_requirements_txt_agrees_with_pyproject() -> None:
    """DECISIONS on installing: it is for people without uv, and must not drift."""
    listed = pins((ROOT / "requirements.txt").read_text().splitlines())
    groups = PROJECT["dependency-groups"]
    wanted = pins([*PROJECT["project"]["dependencies"], *groups["cpu"], *groups["ocr"]])
    assert wanted.items() <= listed.items()
    # Two OpenCVs share one folder: uninstalling either breaks the other.
    assert not {"torch", "opencv-python"} & listed.keys()


def test_no_file_names_a_package_index() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "uv.lock" not in tracked
    assert "://" not in (ROOT / "requirements.txt").read_text()
