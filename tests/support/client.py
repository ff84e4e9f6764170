"""Clients in environments of their own. Skipped, and said so, where uv, npm or the packages cannot be had."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"
INSTALL_S = 240
CALLS_S = 300


def said(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """The JSON object in the last line that a command prints."""
    found: dict[str, Any] = json.loads(done(command, folder).splitlines()[-1])
    return found


def done(command: Sequence[str], folder: Path) -> str:
    """What a command prints; one that fails fails the test."""
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CALLS_S)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-3000:]
    return ended.stdout


def installed(command: Sequence[str], folder: Path, what: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not there to install {what}")
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if ended.returncode != 0:
        pytest.skip(f"{what} could not be installed: {ended.stderr.strip().splitlines()[-1:]}")


def python_with(packages: Sequence[str], folder: Path) -> str:
    """The interpreter of a new environment below `folder` that holds the packages."""
    python = str(folder / "env" / "bin" / "python")
    installed(["uv", "venv", "--quiet", "--python", sys.executable, str(folder / "env")], folder, "an environment")
    add_packages(python, packages, folder)
    return python


def add_packages(python: str, packages: Sequence[str], folder: Path) -> None:
    installed(["uv", "pip", "install", "--quiet", "--python", python, *packages], folder, " ".join(packages))


def add_node_packages(packages: Sequence[str], folder: Path) -> None:
    """Where node finds them: in `folder`, which becomes a package of ES modules."""
    if shutil.which("node") is None:
        pytest.skip("node is not there")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    installed(command, folder, " ".join(packages))
