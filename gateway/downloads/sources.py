"""The repositories and files of a model, and the removal of a model. Reads and removes folders."""

from __future__ import annotations

from engine.catalog import HubFiles, ModelSpec
from gateway.errors import ModelKept, ModelNotFound
from gateway.models import folders
from gateway.models.library import Library

Sources = tuple[HubFiles, ...]


def sources_of(spec: ModelSpec) -> Sources:
    """The repositories that a model needs, its own first."""
    own = () if spec.repo is None else (HubFiles(repo=spec.repo, patterns=spec.files, revision=spec.revision),)
    return (*own, *spec.also)


def repos_of(library: Library, model: str) -> set[str]:
    try:
        return {source.repo for source in sources_of(library.find(model))}
    except ModelNotFound:
        return set()


def remove(library: Library, spec: ModelSpec) -> None:
    """Remove the downloaded files of a model, except those of other models on this machine. Blocks.

    Raises: ModelNotOnDisk, ModelKept.
    """
    own = sources_of(spec)
    repos = {source.repo for source in own}
    others = {
        other.name: sources_of_other
        for other in library.specs
        if (sources_of_other := sources_of(other)) != own
        and repos & {source.repo for source in sources_of_other}
        and library.on_disk(other)
    }
    gone = False
    for source in own:
        shared = [other for sources in others.values() for other in sources if other.repo == source.repo]
        keep = [pattern for other in shared for pattern in other.patterns or ("*",)]
        gone = folders.remove(library.models_dir, source.repo, source.patterns, keep) or gone
    if gone:
        return
    library.folder(spec)
    if others:
        raise ModelKept(f"{next(iter(others))} needs the files of {spec.name}; remove that first.")
    raise ModelKept(f"{spec.name} was not downloaded by this gateway; its folder is yours to remove.")
