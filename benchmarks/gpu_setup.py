"""Setup of a part of benchmarks/gpu.py: what it measures with, and where its rows go."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_report import Row
from engine.client.environment import child_environment
from engine.client.options import EngineOptions
from tests.support.live import ROOT

LIKE = "flux2-klein-4b"
"""The catalogue's row whose geometry the model with random weights has."""

Emit = Callable[[Row], None]


class Lacking(Exception):
    """A part cannot run on this machine; the text says what it lacks."""


@dataclass(frozen=True, slots=True)
class Setup:
    """`out` takes what is kept, `work` weights and everything else. `tiny`: toys on the CPU, to try the script itself.
    `cache_gb` is `engine.cache_limit_gb` where it is not the default.
    """

    out: Path
    work: Path
    tiny: bool = False
    cache_gb: float | None = None

    @property
    def weights(self) -> Path:
        """Folder of the model with random weights."""
        return self.work / ("toy" if self.tiny else "klein")

    @property
    def size_px(self) -> int:
        return 64 if self.tiny else 1024

    @property
    def pairs(self) -> int:
        """How often an image is drawn by each side."""
        return 2 if self.tiny else 7

    def environment(self, **more: str) -> dict[str, str]:
        """Environment of a process that computes as the engine does; `more` has the last word."""
        options = EngineOptions(backend="mlx", kernels=self.work / "kernels")
        return {**child_environment(options, os.environ), "PYTHONPATH": python_path(), **more}


def python_path() -> str:
    """This checkout, then what the caller has."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def print_row(row: Row) -> None:
    """Print a row for `benchmarks.gpu`, which runs the part in a process of its own."""
    line = {name: getattr(row, name) for name in Row.__slots__}
    print(f"row {json.dumps(line)}", flush=True)
