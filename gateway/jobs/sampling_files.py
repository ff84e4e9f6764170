"""Files of the library that a request's sampling means, as the planner finds them before a plan is decided. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.catalog import ModelSpec
from engine.protocol import Generate


@dataclass(frozen=True, slots=True)
class SamplingFiles:
    """What the library has of the files that one request means."""

    vae: str | None = None
    """Name of the VAE file that the request names; None: there is none of that name."""
    automatic_vae: str | None = None
    """Name of the VAE file beside the checkpoint, where there is one."""
    embeddings: tuple[str, ...] = ()
    """Names of all textual inversions that fit the model."""
    refiner: ModelSpec | None = None
    """The model that the request names as its refiner; None: there is none of that name."""


@dataclass(frozen=True, slots=True)
class FileHashes:
    """Hashes of the files of a plan, as infotexts have them: the first digits of a sha256 in hex; None: not known.

    Source: A1111 1.10.1: 10 digits of checkpoints and VAE files, 12 of LoRAs and textual inversions.
    """

    model: str | None = None
    vae: str | None = None
    refiner: str | None = None
    embeddings: Mapping[str, str] = field(default_factory=dict)
    """By the names of the textual inversions that the prompts contain."""
    loras: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListedEmbedding:
    """One textual inversion: its name, and the shape of its vectors."""

    name: str
    vectors: int
    width: int
    """Values of one vector."""
    step: int | None = None
    checkpoint: str | None = None
    """The checkpoint that it was trained with, where its file says so."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The textual inversions of the library: those that a model can use, and the others."""

    loaded: tuple[ListedEmbedding, ...] = ()
    skipped: tuple[ListedEmbedding, ...] = ()


class StableDiffusionFiles(Protocol):
    """Checkpoints, VAE files and textual inversions of the library. Its methods read the disk and block."""

    def checkpoint(self, title: str) -> ModelSpec | None:
        """The model of a name, a title of A1111 (`x.safetensors [0123456789]`) or a hash of 8, 10 or 64 hex digits."""

    def title(self, spec: ModelSpec) -> str:
        """A1111's title of a checkpoint: its file name, and the hash in brackets where that is known."""

    def sha256(self, spec: ModelSpec) -> str | None:
        """The sha256 of a checkpoint file in hex; None where it is not known yet, or the model is a folder."""

    def vaes(self) -> Sequence[str]:
        """Names of the VAE files, with their suffix."""

    def vae(self, name: str) -> str | None:
        """The name of the VAE file of this name, with or without its suffix."""

    def vae_beside(self, spec: ModelSpec) -> str | None:
        """The name of the VAE file whose name begins with the checkpoint's."""

    def embeddings(self, spec: ModelSpec) -> Embeddings:
        """The textual inversions, by whether they fit the model."""

    def hashes(self, plan: Generate) -> FileHashes:
        """The hashes of the files of a plan that are known."""
