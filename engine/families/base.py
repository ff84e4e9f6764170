"""What a family is to the backend: a loaded pipeline that paints one picture. Knows no wire and no jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from engine.backends.base import Watcher
from engine.backends.canvas import Frame


@dataclass(frozen=True, slots=True)
class Sketch:
    """One picture to paint: `frame` holds its size and what it begins from."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    denoise: float
    frame: Frame


class Painter(Protocol):
    """A loaded model with its family's calling convention."""

    def paint(self, sketch: Sketch, watcher: Watcher) -> Image:
        """The picture at `sketch.frame.drawn`. Raises: JobCancelled."""
