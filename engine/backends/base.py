"""What a backend is: the part of the child that turns a plan into pixels. Knows no wire, no queue and no MLX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.catalog import ModelSpec
from engine.protocol import FailureCode, Generate, Memory, PromptRead, Upscale


@dataclass(frozen=True, slots=True)
class Model:
    """What a job wants in memory. `path` is an absolute folder."""

    spec: ModelSpec
    path: str
    quantize: int | None
    copy: str | None = None
    """A folder of the same weights that were quantised before."""
    also: tuple[str, ...] = ()
    """One absolute folder for each of the spec's further repositories; none where all lies in `path`."""
    prompt_key: str | None = None
    """`prompt_key` of the plan it is for: then its text encoders may be gone, if they have read that already."""

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """Two models with one key have the same weights in memory."""
        return (self.spec.family, self.spec.geometry, self.path, self.quantize)


def prompt_key(plan: object) -> str | None:
    """What a picture that spares memory says: its text encoders go once that is encoded. None where they stay, as they
    do where pictures are read with the prompt.
    """
    if not isinstance(plan, Generate) or not plan.low_ram or plan.references:
        return None
    return repr((plan.prompt, plan.negative_prompt, plan.guidance > 1))


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """Finished pixels: `rgb` holds three bytes a pixel, rows from the top."""

    width_px: int
    height_px: int
    rgb: bytes
    drawn_px: tuple[int, int]
    """What the model drew at, before any fitting to the asked size."""


class JobCancelled(Exception):
    """The job was asked to stop; raised through the backend, which stays usable."""


class ImageSkipped(Exception):
    """The rest of the steps is not wanted: the backend finishes the picture as it stands."""


class BackendError(Exception):
    """The job cannot be done. `message` is a sentence fit for a client."""

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code: FailureCode = code
        self.message = message
        super().__init__(message)


class Watcher(Protocol):
    """Who is told how far one picture is, and may stop it."""

    def check(self) -> None:
        """Raises: JobCancelled."""

    def read(self, prompt: PromptRead) -> None:
        """Something of a prompt was left out; told once for every picture that it is read for."""

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        """One step was evaluated; `preview` gives a JPEG and is called only where one is due.

        Raises: JobCancelled; ImageSkipped, never after the last step.
        """

    def decoding(self) -> None:
        """Pixels are made next, which cannot be interrupted. Raises: JobCancelled."""


class Backend(Protocol):
    """Holds one model at most. Called from one thread only."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def memory_limit_bytes(self) -> int | None:
        """What the device lets one process use."""

    def holds(self, model: Model) -> bool:
        """Whether `model` is in memory already."""

    def load(self, model: Model) -> None:
        """Put `model` in the place of whatever was loaded; from its copy where it has one.

        Raises: BackendError, MemoryError, or anything else for a model that cannot be loaded.
        """

    def draw(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> FinishedImage:
        """FinishedImage number `image` of the plan with the loaded model, which `spec` describes; `inputs` says where the
        plan's blobs lie.

        Raises: JobCancelled, BackendError, MemoryError.
        """

    def save(self, folder: str) -> None:
        """Write the loaded model into an empty folder, as `load` reads it. Raises: OSError, ValueError."""

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> FinishedImage:
        """The picture in the file `image`, larger, by the loaded model.

        Raises: JobCancelled, BackendError, MemoryError.
        """

    def prove(self) -> None:
        """Do something trivial, to show that the device still answers."""

    def memory(self) -> Memory: ...

    def clear(self) -> None:
        """Give back freed memory that is only kept for later."""


def preview_steps(steps: int, at_most: int) -> frozenset[int]:
    """After which steps a preview is due: spread evenly, never after the last one."""
    count = min(at_most, steps - 1)
    return frozenset(round(i * steps / (count + 1)) for i in range(1, count + 1))
