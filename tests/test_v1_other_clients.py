"""Clients that live in environments of their own: openai's older majors, and its Node package.

Skipped, and said so, where uv, npm or the packages cannot be had.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import Live
from tests.v1_support import gateway, hole_mask, input_png

CLIENTS = Path(__file__).parent / "clients"
INSTALL_S = 240
CALLS_S = 300

DRAWN = {
    "generate": [64, 96],
    "url": [64, 96],
    "edit with a mask": [96, 64],
    "edit of a list": [96, 64],
    "variation": [96, 64],
    "models": True,
    "slash": "org/m:4bit",
    "stream": ["image_generation.completed", "image_generation.partial_image"],
    "stream of an edit": ["image_edit.completed", "image_edit.partial_image"],
    "bad size": ["BadRequestError", "size", 1],
    "no model": ["NotFoundError", "model", 1],
    "bad stream": ["BadRequestError", "n", 1],
}
"""What every client says of the same calls."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with gateway(tmp_path_factory.mktemp("v1"), step_seconds=0.2) as running:
        (running.folder / "picture.png").write_bytes(input_png())
        (running.folder / "mask.png").write_bytes(hole_mask())
        yield running


def arguments(served: Live) -> list[str]:
    return [served.url, str(served.folder / "picture.png"), str(served.folder / "mask.png")]


def said(command: list[str], folder: Path) -> dict[str, Any]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CALLS_S)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def installed(command: list[str], folder: Path, what: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not there to install {what}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode != 0:
        pytest.skip(f"{what} could not be installed: {done.stderr.strip().splitlines()[-1:]}")


@pytest.mark.timeout(INSTALL_S + CALLS_S)
@pytest.mark.parametrize("version", ["1.109.1", "2.54.0"])
def test_an_older_openai_gets_the_same(served: Live, tmp_path: Path, version: str) -> None:
    python = tmp_path / "env" / "bin" / "python"
    installed(["uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], tmp_path, "an environment")
    package = f"openai=={version}"
    installed(["uv", "pip", "install", "--quiet", "--python", str(python), package], tmp_path, package)
    found = said([str(python), str(CLIENTS / "openai_calls.py"), *arguments(served)], tmp_path)
    assert found.pop("version") == version
    assert found.pop("async") == [[64, 64], [96, 64]]
    assert found == {**DRAWN, "null": [64, 96], "edit": [96, 64], "bad picture": ["BadRequestError", "image", 1]}


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_openai_for_node_gets_the_same(served: Live, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not there")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "openai@6.49.0"]
    installed(command, tmp_path, "openai for Node")
    shutil.copy(CLIENTS / "openai_calls.mjs", tmp_path)
    found = said(["node", "openai_calls.mjs", *arguments(served)], tmp_path)
    assert found == {**DRAWN, "edit of a stream": [96, 64]}
