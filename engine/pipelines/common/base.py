"""Interface of a family's pipeline, which generates one image at a time. It knows no wire and no jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from PIL.Image import Image

from engine.drawing.base import Watcher
from engine.drawing.canvas import Frame
from engine.pipelines.common.lora_stack import Loras
from engine.protocol import Generate, Upscale


def key_of(seed: int) -> int:
    """Key for mlx.random.key from any seed: 64 bits without a sign."""
    return seed % 2**64


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to generate: number `image` of the plan. `frame` holds its size and its input images, `files` the paths
    of the plan's other files by `input_name`.
    """

    plan: Generate
    image: int
    frame: Frame
    loras: Loras = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return key_of(self.plan.seeds[self.image])

    @property
    def subseed(self) -> int:
        return key_of(self.plan.subseeds[self.image])


class Upscaler(Protocol):
    """A loaded upscaling model."""

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> Image:
        """Image of the file `image` at the plan's size. Raises: JobCancelled, NotFinite."""

    def save(self, folder: str) -> None:
        """Write the weights as they are in memory, quantised or whole."""


class Pipeline(Protocol):
    """A loaded model with the calling convention of its family."""

    def denoise(self, task: ImageTask, watcher: Watcher) -> Callable[[], Image]:
        """Denoise an image at the size `task.frame.drawn`; the result decodes it, once, in any thread unless the plan
        has low_ram.

        Raises: JobCancelled, LoraFault, NotFinite; the result raises NotFinite.
        """

    def can_read(self, prompt_key: str | None) -> bool:
        """Whether the text encoders are in memory, or have already encoded the prompt of this `prompt_key`."""

    def save(self, folder: str) -> None:
        """Write the weights without LoRAs, quantised as they are, in mflux's format. Raises: OSError, ValueError."""
