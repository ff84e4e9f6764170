"""Environments of the servers: one virtual environment each, made by uv from exact pins, kept for the next run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

UP_TO = "2026-11-28"
"""No release after this date is installed, so that what the pins ask for is always the same."""
NEVER = tuple(f"{name}; sys_platform == 'never'" for name in ("torch", "torchvision", "opencv-python"))
"""Asked for on Linux, some of them with CUDA, and not used to draw with FLUX.2."""
INSTALL_S = 600


class Unavailable(Exception):
    """A server that can't be measured here; the text is a sentence that says why."""


@dataclass(frozen=True)
class Install:
    """What is installed: exact pins, and a version of Python. `mlx` is that of the pins, on Linux with its CPU part."""

    pins: tuple[str, ...]
    python: str
    mlx: str

    def requirements(self) -> tuple[str, ...]:
        return (*self.pins, f"mlx=={self.mlx}", f"mlx-cpu=={self.mlx}; sys_platform == 'linux'")

    def overrides(self) -> tuple[str, ...]:
        return (f"mlx=={self.mlx}", *NEVER)


def prepare(home: Path, name: str, install: Install) -> Path:
    """The Python of the server's environment, which is made where there is none of these pins.

    Raises: Unavailable.
    """
    folder = home / name
    python = folder / "bin" / "python"
    stamp = folder / "pins.json"
    content = json.dumps([install.requirements(), install.overrides(), install.python, UP_TO])
    if stamp.exists() and stamp.read_text(encoding="utf-8") == content and python.exists():
        return python
    if shutil.which("uv") is None:
        raise Unavailable(f"{name} is left out: uv, which makes its environment, is not installed.")
    overrides = home / f"{name}.overrides.txt"
    overrides.write_text("\n".join(install.overrides()) + "\n", encoding="utf-8")
    _uv(name, "venv", "--clear", "--python", install.python, str(folder))
    options = ("--overrides", str(overrides), "--exclude-newer", UP_TO, "--compile-bytecode")
    _uv(name, "pip", "install", "--python", str(python), *options, *install.requirements())
    stamp.write_text(content, encoding="utf-8")
    return python


def _uv(name: str, *words: str) -> None:
    try:
        done = subprocess.run(
            ["uv", "--no-config", "--quiet", *words],
            env=_variables(),
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} is left out: uv {words[0]} took more than {INSTALL_S} s.") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.lstrip("×x ").startswith(("error", "No "))), "no reason given")
        raise Unavailable(f"{name} is left out: uv {words[0]} failed: {reason}")


def _variables() -> dict[str, str]:
    """uv finds the Pythons of pyenv too, fetches none, and takes packages from nowhere but its index."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders = [str(folder) for folder in sorted(pyenv.glob("3.*/bin"), reverse=True)]
    path = os.pathsep.join((*folders, os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "UV_PYTHON_DOWNLOADS": "never"}
