"""The checkpoints, VAE files and textual inversions of the library, as A1111 lists them. Reads the disk."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from adapters.sdapi.prompt_tags import without_hash
from engine.catalog import ModelSpec
from gateway.errors import ModelNotFound, ModelNotServed
from gateway.jobs.resolve_sampling import is_sampled
from gateway.jobs.sampling_files import ListedEmbedding
from gateway.models.library import Library

SHORT_CHARS = 10
"""Digits of a sha256 that A1111 shows of a checkpoint."""


def known_name(library: Library, name: str) -> str | None:
    """The name itself where a model has it, or the name of the checkpoint of a hash or title; None: neither is here."""
    with suppress(ModelNotFound, ModelNotServed):
        library.find(name)
        return name
    spec = library.files.checkpoint(name)
    return None if spec is None else spec.name


def name_of(library: Library, title: str) -> str:
    """The name of a model by A1111's title, with or without its hash; a name that is not known stays as it is."""
    plain = without_hash(title)
    return known_name(library, plain) or known_name(library, title) or plain


def current_of(library: Library, name: str) -> str:
    """The title of the current checkpoint, which may be missing."""
    with suppress(ModelNotFound, ModelNotServed):
        return _title(library, name, library.find(name))
    return name


def checkpoint_rows(library: Library, current: str) -> list[dict[str, Any]]:
    """One row for each model that can draw now, with aliases, and always for the current one.

    Of Stable Diffusion, `title` is the file name with its hash; of other models `title` and `model_name` are the same
    name. `filename` has no folder. Source: A1111 1.10.1 SDModelItem.
    """
    names = [spec.name for spec in library.specs if library.draws(spec)]
    names += [alias for alias, target in library.aliases.items() if target in names]
    if current not in names:
        names.insert(0, current)
    return [_row(library, name) for name in dict.fromkeys(names)]


def _row(library: Library, name: str) -> dict[str, Any]:
    spec: ModelSpec | None = None
    with suppress(ModelNotFound, ModelNotServed):
        spec = library.find(name)
    title = name if spec is None else _title(library, name, spec)
    sha256 = library.files.sha256(spec) if spec is not None and is_sampled(spec) else None
    return {
        "title": title,
        "model_name": name,
        "hash": sha256 and sha256[:SHORT_CHARS],
        "sha256": sha256,
        "filename": without_hash(title).rpartition("/")[2],
        "config": None,
    }


def _title(library: Library, name: str, spec: ModelSpec) -> str:
    return library.files.title(spec) if is_sampled(spec) and spec.name == name else name


def vae_rows(library: Library) -> list[dict[str, Any]]:
    """One row for each VAE file; `filename` has no folder. Source: A1111 1.10.1 SDVaeItem."""
    return [{"model_name": name, "filename": name} for name in library.files.vaes()]


def embedding_rows(library: Library, current: str) -> dict[str, dict[str, Any]]:
    """The textual inversions by name. Source: A1111 1.10.1 EmbeddingsResponse."""
    with suppress(ModelNotFound, ModelNotServed):
        spec = library.find(current)
        if is_sampled(spec):
            found = library.files.embeddings(spec)
            return {"loaded": _by_name(found.loaded), "skipped": _by_name(found.skipped)}
    return {"loaded": {}, "skipped": {}}


def _by_name(files: tuple[ListedEmbedding, ...]) -> dict[str, Any]:
    return {
        one.name: {
            "step": one.step,
            "sd_checkpoint": None,
            "sd_checkpoint_name": one.checkpoint,
            "shape": one.width,
            "vectors": one.vectors,
        }
        for one in files
    }
