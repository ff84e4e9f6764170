"""Who is told of one pass of a picture that takes several. Knows backends, no wire and no job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.backends.base import PictureSkipped, Watcher


@dataclass(slots=True)
class PassWatcher:
    """Counts the steps of one pass among those of all."""

    watcher: Watcher
    before: int
    """Steps of the passes before."""
    after: int
    """Steps of the passes after."""
    run: int = 0
    skipped: bool = False

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.run = steps
        try:
            self.watcher.step(self.before + step, self.before + steps + self.after, seconds, preview)
        except PictureSkipped:
            self.skipped = True
            if step < steps:
                raise

    def check(self) -> None:
        self.watcher.check()

    def decoding(self) -> None:
        self.watcher.decoding()
