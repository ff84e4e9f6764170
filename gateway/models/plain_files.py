"""Files of Stable Diffusion where the library has models by name only: no VAE files, no textual inversions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from engine.catalog import ModelSpec
from engine.protocol import Generate
from gateway.errors import ModelNotFound
from gateway.jobs.sampling_files import Embeddings, FileHashes

_SUFFIX = ".safetensors"


class PlainFiles:
    """A `StableDiffusionFiles` of a library without files of its own; `find` finds a model by its exact name."""

    def __init__(self, find: Callable[[str], ModelSpec]) -> None:
        self._find = find

    def checkpoint(self, title: str) -> ModelSpec | None:
        """The model of a name, with or without A1111's hash and the file's suffix."""
        name = title.rpartition(" [")[0] if title.endswith("]") else title
        for candidate in (title, name, name.removesuffix(_SUFFIX)):
            with suppress(ModelNotFound):
                return self._find(candidate)
        return None

    def title(self, spec: ModelSpec) -> str:
        """The name of the model."""
        return spec.name

    def sha256(self, spec: ModelSpec) -> str | None:
        """None: no file is read."""
        return None

    def vaes(self) -> Sequence[str]:
        """None are here."""
        return ()

    def vae(self, name: str) -> str | None:
        """None are here."""
        return None

    def vae_beside(self, spec: ModelSpec) -> str | None:
        """None are here."""
        return None

    def embeddings(self, spec: ModelSpec) -> Embeddings:
        """None are here."""
        return Embeddings()

    def hashes(self, plan: Generate) -> FileHashes:
        """None are known."""
        return FileHashes()
