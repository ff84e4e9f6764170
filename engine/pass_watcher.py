"""Who is told of one pass of a picture that takes several. Knows backends, no wire and no job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.backends.base import ImageSkipped, Watcher
from engine.protocol import PromptRead


@dataclass(slots=True)
class PassWatcher:
    """Counts the steps of one pass among those of all."""

    watcher: Watcher
    before: int
    """Steps of the passes before."""
    after: int
    """Steps of the passes after."""
    own_prompt: bool = False
    """It draws another prompt than the first pass."""
    run: int = 0
    skipped: bool = False

    def read(self, prompt: PromptRead) -> None:
        own = self.own_prompt and prompt.field == "prompt"
        self.watcher.read(prompt.model_copy(update={"field": "second_pass.prompt"}) if own else prompt)

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.run = steps
        try:
            self.watcher.step(self.before + step, self.before + steps + self.after, seconds, preview)
        except ImageSkipped:
            self.skipped = True
            if step < steps:
                raise

    def check(self) -> None:
        self.watcher.check()

    def decoding(self) -> None:
        self.watcher.decoding()
