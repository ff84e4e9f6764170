"""Progress of one pass of an image that takes several passes. It knows backends, no wire and no job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.drawing.base import ImageSkipped, Watcher
from engine.protocol import PromptRead


@dataclass(slots=True)
class PassWatcher:
    """Watcher that counts the steps of one pass among those of all."""

    watcher: Watcher
    before: int
    """Steps of the passes before this one."""
    after: int
    """Steps of the passes after this one."""
    own_prompt: bool = False
    """Whether this pass has another prompt than the first."""
    run: int = 0
    skipped: bool = False

    def report_prompt(self, prompt: PromptRead) -> None:
        own = self.own_prompt and prompt.field == "prompt"
        self.watcher.report_prompt(prompt.model_copy(update={"field": "second_pass.prompt"}) if own else prompt)

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

    def start_decoding(self) -> None:
        self.watcher.start_decoding()
