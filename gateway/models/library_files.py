"""Checkpoints, VAE files and textual inversions of the library, as requests of A1111's clients name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from engine.catalog import ModelSpec
from engine.protocol import Generate
from gateway.errors import ModelNotFound, ModelNotServed
from gateway.jobs.sampling_files import Embeddings, FileHashes, ListedEmbedding
from gateway.models.checkpoint_hashes import SHORT_CHARS
from gateway.models.checkpoint_rows import TEXT_WIDTHS
from gateway.models.checkpoints import CheckpointLibrary
from gateway.models.embedding_files import EmbeddingFile, EmbeddingLibrary
from gateway.models.lora_hashes import SHORT_CHARS as LORA_CHARS
from gateway.models.loras import LoraLibrary
from gateway.models.vae_files import VaeLibrary

_HASH = re.compile(r" \[[^\]]{1,64}\]\Z")
_SUFFIX = ".safetensors"


class LibraryFiles:
    """The files of one library: a `StableDiffusionFiles`. `find` is its way from a name to a row."""

    def __init__(
        self,
        find: Callable[[str], ModelSpec],
        checkpoints: CheckpointLibrary,
        vaes: VaeLibrary,
        embeddings: EmbeddingLibrary,
        loras: LoraLibrary,
    ) -> None:
        self._find = find
        self._checkpoints = checkpoints
        self._vaes = vaes
        self._embeddings = embeddings
        self._loras = loras

    def checkpoint(self, title: str) -> ModelSpec | None:
        """The model of a name, of a title of A1111, or of a hash; the hash and the suffix may be wrong."""
        bracket = title.rfind(" [")
        name = title[:bracket] if bracket > 0 and _HASH.match(title, bracket) else title
        for candidate in (title, name, name.removesuffix(_SUFFIX)):
            with suppress(ModelNotFound, ModelNotServed):
                return self._find(candidate)
        return None

    def title(self, spec: ModelSpec) -> str:
        """A1111's title of a checkpoint; of another model its name."""
        one = self._checkpoints.get(spec.name)
        return spec.name if one is None else self._checkpoints.title(one)

    def sha256(self, spec: ModelSpec) -> str | None:
        """The SHA-256 of a checkpoint's file; None where it is not known yet, or the model is a folder."""
        one = self._checkpoints.get(spec.name)
        return None if one is None else self._checkpoints.sha256(one)

    def vaes(self) -> Sequence[str]:
        """Names of the VAE files, with their suffix."""
        self._vaes.refresh()
        return [one.name for one in self._vaes.all()]

    def vae(self, name: str) -> str | None:
        """The name of the VAE file of this name, with or without its suffix; None where it cannot be used."""
        one = self._vaes.find(name)
        return None if one is None or one.trouble is not None else one.name

    def vae_beside(self, spec: ModelSpec) -> str | None:
        """The name of the VAE file whose name begins with the checkpoint's."""
        checkpoint = self._checkpoints.get(spec.name)
        one = None if checkpoint is None else self._vaes.beside(checkpoint.path)
        return None if one is None else one.name

    def embeddings(self, spec: ModelSpec) -> Embeddings:
        """The textual inversions, by whether they fit the model's text encoders."""
        self._embeddings.refresh()
        widths = self.text_widths(spec)
        files = [(one, _listed(one)) for one in self._embeddings.all()]
        return Embeddings(
            loaded=tuple(listed for one, listed in files if one.header is not None and one.header.fits(widths)),
            skipped=tuple(listed for one, listed in files if one.header is None or not one.header.fits(widths)),
        )

    def text_widths(self, spec: ModelSpec) -> tuple[int, ...]:
        """Widths of a model's text encoders, by which textual inversions fit it."""
        one = self._checkpoints.get(spec.name)
        return TEXT_WIDTHS.get(spec.family, ()) if one is None or one.kind is None else one.kind.text_widths

    def hashes(self, plan: Generate) -> FileHashes:
        """The hashes of the files of a plan that are known."""
        sampling = plan.sampling
        vae = None if sampling is None or sampling.vae is None else self._vaes.find(sampling.vae)
        refiner = None if sampling is None else sampling.refiner
        embeddings = {one.name: one.sha256 for one in self._embeddings.all() if one.sha256 is not None}
        names = () if sampling is None else sampling.embeddings
        return FileHashes(
            model=self._short(plan.model),
            vae=None if vae is None else _first(self._vaes.hashes.of(vae.found)),
            refiner=None if refiner is None else self._short(refiner.model),
            embeddings={name: embeddings[name][:LORA_CHARS] for name in names if name in embeddings},
            loras=self._of_loras([lora.name for lora in plan.loras]),
        )

    def _short(self, model: str) -> str | None:
        with suppress(ModelNotFound, ModelNotServed):
            return _first(self.sha256(self._find(model)))
        return None

    def _of_loras(self, names: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names:
            lora = self._loras.find(name)
            hashes = None if lora is None else self._loras.hashes(lora, read=False)
            if hashes is not None:
                found[name] = hashes.short
        return found


def _listed(one: EmbeddingFile) -> ListedEmbedding:
    """A1111 adds up the widths of SDXL's two encoders."""
    vectors, widths = (0, ()) if one.header is None else (one.header.vectors, one.header.widths)
    return ListedEmbedding(one.name, vectors, sum(widths))


def _first(sha256: str | None) -> str | None:
    return None if sha256 is None else sha256[:SHORT_CHARS]
