"""Interface of a backend, which turns a plan into pixels in the child process. It knows no wire, no queue and
no MLX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.catalog import ModelSpec
from engine.protocol import FailureCode, Generate, Memory, PromptRead, Upscale


@dataclass(frozen=True, slots=True)
class Model:
    """Model that a job needs in memory. `path` is an absolute folder."""

    spec: ModelSpec
    path: str
    quantize: int | None
    copy: str | None = None
    """Folder with the same weights, quantised before."""
    also: tuple[str, ...] = ()
    """One absolute folder for each of the spec's further repositories; empty where all files are in `path`."""
    prompt_key: str | None = None
    """`prompt_key` of the plan that the model is loaded for. With a key, the text encoders may be released once they
    have encoded that prompt.
    """

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """Two models with the same key have the same weights in memory."""
        return (self.spec.family, self.spec.geometry, self.path, self.quantize)


def prompt_key(plan: object) -> str | None:
    """Key of the prompt of a low_ram plan, whose text encoders are released after encoding. None for plans whose
    encoders stay in memory: without low_ram, or where reference images are encoded with the prompt.
    """
    if not isinstance(plan, Generate) or not plan.low_ram or plan.references:
        return None
    return repr((plan.prompt, plan.negative_prompt, plan.guidance > 1))


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """Finished image. `rgb` holds three bytes a pixel, rows from the top."""

    width_px: int
    height_px: int
    rgb: bytes
    drawn_px: tuple[int, int]
    """Size at which the model generated, before the image was fitted to the requested size."""


Decode = Callable[[], FinishedImage]
"""Function that decodes one image from its last latents: called once, from any thread.

Raises: BackendError, MemoryError.
"""


class JobCancelled(Exception):
    """The job was cancelled. It is raised through the backend, which stays usable."""


class ImageSkipped(Exception):
    """The remaining steps are skipped: the backend finishes the image from the latents it has."""


class BackendError(Exception):
    """Failure of a job. `message` is a sentence fit for a client."""

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code: FailureCode = code
        self.message = message
        super().__init__(message)


class Watcher(Protocol):
    """Receiver of the progress of one image, which may also stop it."""

    def check(self) -> None:
        """Raises: JobCancelled."""

    def report_prompt(self, prompt: PromptRead) -> None:
        """Report that something of a prompt was left out; called for every image that the prompt is encoded for."""

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        """Report one evaluated step. `preview` makes a JPEG and is called only where a preview is due.

        Raises: JobCancelled; ImageSkipped, never after the last step.
        """

    def start_decoding(self) -> None:
        """Report that decoding starts, which cannot be interrupted. Raises: JobCancelled."""


class Backend(Protocol):
    """Backend that holds at most one model. Called from one thread only, except for `Decode`."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def memory_limit_bytes(self) -> int | None:
        """Memory that the device lets one process use."""

    def holds(self, model: Model) -> bool:
        """Whether `model` is in memory already."""

    def load(self, model: Model) -> None:
        """Load `model` in place of whatever was loaded; from its quantised copy where it has one.

        Raises: BackendError, MemoryError, or anything else for a model that cannot be loaded.
        """

    def draw(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> FinishedImage:
        """Generate image number `image` of the plan with the loaded model, which `spec` describes. `inputs` maps the
        plan's blobs to files.

        Raises: JobCancelled, BackendError, MemoryError.
        """

    def denoise(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> Decode:
        """Do what `draw` does, up to the decoding, which the result does: beside other images, unless `plan.low_ram`.

        Raises: as `draw`.
        """

    def save(self, folder: str) -> None:
        """Write the loaded model into an empty folder in the form that `load` reads. Raises: OSError, ValueError."""

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> FinishedImage:
        """Upscale the image in the file `image` with the loaded model.

        Raises: JobCancelled, BackendError, MemoryError.
        """

    def check_device(self) -> None:
        """Compute something trivial, to show that the device still answers."""

    def memory(self) -> Memory: ...

    def clear(self) -> None:
        """Free the memory that is cached for later use."""


def preview_steps(steps: int, at_most: int) -> frozenset[int]:
    """Numbers of the steps after which a preview is due: spread evenly, never the last step."""
    count = min(at_most, steps - 1)
    return frozenset(round(i * steps / (count + 1)) for i in range(1, count + 1))
