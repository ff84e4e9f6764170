"""Model library: which models have a name here, and where their weights are. Reads folders; imports no MLX."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.catalog import CATALOG, EMBEDDED, EMBEDDED_PATH, HubFiles, ModelSpec
from engine.catalog.spec import STABLE_DIFFUSION
from engine.catalog.stable_diffusion import LAYOUT
from gateway.errors import ModelNotFound, ModelNotOnDisk, ModelNotServed, clip
from gateway.models.checkpoint_rows import checkpoint_row
from gateway.models.checkpoints import CheckpointLibrary
from gateway.models.embedding_files import EmbeddingLibrary
from gateway.models.folders import folder_of, holds_weights, hub_snapshot, is_usable
from gateway.models.library_files import LibraryFiles
from gateway.models.loras import LoraLibrary
from gateway.models.suggestions import instead_of
from gateway.models.user_models import HubModel, LocalModel, hub_row, local_row
from gateway.models.vae_files import VaeLibrary

FORMER_MOST = 1000
"""Checkpoints that are gone whose names are remembered."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows by name, the folders or files of the operator's own, and for each name the first one with its weights."""

    specs: Mapping[str, ModelSpec]
    places: Mapping[str, Path]
    weights: Mapping[str, str]


class Library:
    """Catalogue rows, the operator's folders, checkpoints and aliases as one set of exact names.

    The checkpoints are those that the last `refresh` found.
    """

    def __init__(
        self,
        models_dir: Path,
        *,
        default: str,
        aliases: Mapping[str, str] | None = None,
        local: Mapping[str, LocalModel] | None = None,
        hub: Mapping[str, HubModel] | None = None,
        loras: LoraLibrary | None = None,
        checkpoints: CheckpointLibrary | None = None,
        vaes: VaeLibrary | None = None,
        embeddings: EmbeddingLibrary | None = None,
    ) -> None:
        self._models_dir = models_dir.resolve()
        self.loras = loras or LoraLibrary([self._models_dir / "loras"])
        self.checkpoints = checkpoints or CheckpointLibrary()
        self.vaes = vaes or VaeLibrary()
        self.embeddings = embeddings or EmbeddingLibrary()
        self.files = LibraryFiles(self.find, self.checkpoints, self.vaes, self.embeddings, self.loras)
        """Checkpoints, VAE files and textual inversions, as requests name them."""
        self._fixed = {spec.name: spec for spec in CATALOG}
        self._folders: dict[str, Path] = {EMBEDDED: EMBEDDED_PATH}
        for name, model in (local or {}).items():
            self._fixed[name] = local_row(name, model)
            self._folders[name] = model.path.resolve()
        self._fixed |= {name: hub_row(name, model) for name, model in (hub or {}).items()}
        self._aliases = dict(aliases or {})
        self._refreshing = threading.Lock()
        self._former: dict[str, tuple[ModelSpec, Path]] = {}
        """Checkpoints that were there once: jobs may still name them."""
        self._rows = self._rows_with({})
        if any(name not in self._fixed for name in (*self._aliases.values(), self._aliases.get(default, default))):
            self.refresh()
        for target in self._aliases.values():
            self.find(target)
        self.default = self.find(default).name

    def refresh(self) -> None:
        """Find the checkpoints, VAE files and textual inversions that are in their folders now. Blocks."""
        with self._refreshing:
            self.vaes.refresh()
            self.embeddings.refresh()
            if not self.checkpoints.refresh(taken={*self._fixed, *self._aliases}):
                return
            found = {one.name: (checkpoint_row(one), one.path) for one in self.checkpoints.all()}
            gone = {name: there for name, there in self._former.items() if name not in found}
            self._former = dict([*gone.items(), *found.items()][-FORMER_MOST:])
            self._rows = self._rows_with(found)

    def _rows_with(self, checkpoints: Mapping[str, tuple[ModelSpec, Path]]) -> _Rows:
        specs = {**self._fixed, **{name: spec for name, (spec, _) in checkpoints.items()}}
        places = {**self._folders, **{name: path for name, (_, path) in checkpoints.items()}}
        owners: dict[tuple[str, ...], str] = {}
        sources = {name: (spec.family, spec.geometry, _source(spec, places)) for name, spec in specs.items()}
        return _Rows(specs, places, {name: owners.setdefault(source, name) for name, source in sources.items()})

    @property
    def models_dir(self) -> Path:
        return self._models_dir

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """All rows except those whose name is an alias of another model."""
        return tuple(spec for name, spec in self._rows.specs.items() if name not in self._aliases)

    @property
    def available(self) -> list[str]:
        """Names of the models that generate images, downloaded or not; the operator's own and aliases first."""
        names = [spec.name for spec in self.specs if spec.unavailable is None and spec.task == "generate"]
        listed = {spec.name for spec in CATALOG}
        return [*sorted(set(names) - listed), *self._aliases, *(name for name in names if name in listed)]

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def find(self, name: str | None) -> ModelSpec:
        """The row of exactly this name or alias, or of the checkpoint that A1111 calls so; the default for None.

        Raises: ModelNotFound with the list of available models; ModelNotServed for a file that cannot be used.
        """
        if name is None:
            name = self.default
        name = self._aliases.get(name, name)
        spec = self._rows.specs.get(name) or self._checkpoint(name)
        if spec is None:
            if (trouble := self.checkpoints.trouble(name)) is not None:
                raise ModelNotServed(f"'{clip(name)}' cannot be used. {trouble}", param="model")
            why, suggestion = instead_of(name) or ("See the models list", None)
            available = self.available
            details: dict[str, object] = {"available_models": available}
            if suggestion is not None:
                details["suggestion"] = suggestion
                available.sort(key=lambda there: suggestion != f"Use {there}")  # an error may show only the first ones
            raise ModelNotFound(f"Model '{clip(name)}' not found. {why}", param="model", details=details)
        return spec

    def _checkpoint(self, call: str) -> ModelSpec | None:
        """The row of the checkpoint that a client means, or of one that is gone."""
        if (found := self.checkpoints.find(call)) is not None:
            return self._rows.specs.get(found.name)
        former = self._former.get(call)
        return None if former is None else former[0]

    def find_folder(self, spec: ModelSpec) -> Path | None:
        """Like `folder`; None if the weights are not on disk."""
        return self._locate(spec) if spec.unavailable is None else None

    def folder(self, spec: ModelSpec) -> Path:
        """The absolute folder of the model's weights; of a checkpoint in one file that file.

        Raises: ModelNotServed, ModelNotOnDisk.
        """
        folder = self.find_folder(spec)
        if spec.unavailable is not None:
            raise ModelNotServed(spec.unavailable, param="model")
        if folder is None:
            raise ModelNotOnDisk(
                f"The weights of '{spec.name}' are not on this machine. {self._next_step(spec)}, or use '{EMBEDDED}', "
                "which is always there.",
                param="model",
            )
        if self._locate_also(spec, folder) is None:
            repos = " and ".join(files.repo for files in spec.also)
            raise ModelNotOnDisk(f"'{spec.name}' also needs {repos}, not on this machine.", param="model")
        return folder

    @staticmethod
    def _next_step(spec: ModelSpec) -> str:
        if spec.repo is None:
            return "Put them into its folder"
        return f"Fetch them with `mflux-gateway models pull {spec.name}`, put {spec.repo} into the models folder"

    def weights(self, name: str) -> str:
        """The first name of all models with these weights, whatever their bits."""
        name = self._aliases.get(name, name)
        return self._rows.weights.get(name, name)

    def further_folders(self, spec: ModelSpec) -> tuple[Path, ...]:
        """Folders of the model's further repositories; none if they are part of its own folder.

        Raises: ModelNotServed, ModelNotOnDisk.
        """
        return self._locate_also(spec, self.folder(spec)) or ()

    def on_disk(self, spec: ModelSpec) -> bool:
        """Whether the model can be loaded now: its own weights and those of its further repositories are here."""
        folder = self.find_folder(spec)
        return folder is not None and self._locate_also(spec, folder) is not None

    def draws(self, spec: ModelSpec) -> bool:
        """Whether the model can generate images now."""
        return spec.task == "generate" and self.on_disk(spec)

    def _locate_also(self, spec: ModelSpec, folder: Path) -> tuple[Path, ...] | None:
        """A folder for each further repository; none if mflux saved everything into the model's own folder."""
        if all(more.saved_as is not None and (folder / more.saved_as).is_dir() for more in spec.also):
            return ()
        folders = [self._further(files) for files in spec.also]
        return None if None in folders else tuple(path for path in folders if path is not None)

    def _locate(self, spec: ModelSpec) -> Path | None:
        own = self._rows.places.get(spec.name)
        if own is None and spec.name not in self._rows.specs and spec.name in self._former:
            own = self._former[spec.name][1]
        if own is not None:
            # The operator's folder: some families have their transformer elsewhere than in `transformer/`.
            return own if own.is_file() or is_usable(own, ()) else None
        if spec.family in STABLE_DIFFUSION:
            return self._locate_parts(spec)
        names = [spec.name] if spec.stored_bits else [spec.name, spec.geometry]
        if spec.repo is not None:
            names.append(spec.repo.rpartition("/")[2])
        for folder in (self._models_dir / name for name in names):
            if holds_weights(folder) or (spec.files and folder.is_dir() and is_usable(folder, spec.files)):
                return folder
        if spec.repo is None:
            return None
        return self._further(HubFiles(repo=spec.repo, patterns=spec.files))

    def _locate_parts(self, spec: ModelSpec) -> Path | None:
        """The folder of a model of the catalogue: as downloaded, or with whatever variants of its weights."""
        assert spec.repo is not None
        own = self._models_dir / spec.name
        if is_usable(own, LAYOUT):
            return own
        return next(
            (
                there
                for files in (spec.files, LAYOUT)
                if (there := self._further(HubFiles(repo=spec.repo, patterns=files)))
            ),
            None,
        )

    def _further(self, files: HubFiles) -> Path | None:
        """The folder of a repository: put there by the operator, or downloaded by us or by another tool."""
        own, ours = self._models_dir / files.repo.rpartition("/")[2], folder_of(self._models_dir, files.repo)
        for folder in (own, ours):
            if is_usable(folder, files.patterns):
                return folder
        return hub_snapshot(files.repo, files.patterns)


def _source(spec: ModelSpec, places: Mapping[str, Path]) -> str:
    return str(places.get(spec.name) or spec.repo or spec.name)
