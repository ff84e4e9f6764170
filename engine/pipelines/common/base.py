"""What a family is to the backend: a loaded pipeline that paints one picture. Knows no wire and no jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from engine.backends.base import Watcher
from engine.backends.canvas import Frame
from engine.protocol import Generate, Upscale


def key_of(seed: int) -> int:
    """What mlx.random.key takes of any seed: 64 bits without a sign."""
    return seed % 2**64


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One picture to paint: number `image` of the plan. `frame` holds its size and the pictures it depends on, `loras`
    the files with their scales.
    """

    plan: Generate
    image: int
    frame: Frame
    loras: tuple[tuple[str, float], ...] = ()

    @property
    def seed(self) -> int:
        return key_of(self.plan.seeds[self.image])

    @property
    def subseed(self) -> int:
        return key_of(self.plan.subseeds[self.image])


class Upscaler(Protocol):
    """A loaded model that draws pictures larger."""

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> Image:
        """The picture of the file `image` at the plan's size. Raises: JobCancelled, NotFinite."""

    def save(self, folder: str) -> None:
        """Write it as it is in memory, quantised or whole."""


class Pipeline(Protocol):
    """A loaded model with its family's calling convention."""

    def generate(self, task: ImageTask, watcher: Watcher) -> Image:
        """The picture at `task.frame.drawn`. Raises: JobCancelled, LoraFault, NotFinite."""

    def can_read(self, prompt_key: str | None) -> bool:
        """Whether what reads prompts is here, or has read already what `prompt_key` says of a plan."""

    def save(self, folder: str) -> None:
        """Write the bare weights, quantised as they are, as mflux does. Raises: OSError, ValueError."""
