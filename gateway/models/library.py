"""Model library: which models have a name here, and where their weights are. Reads folders; imports no MLX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.catalog import CATALOG, EMBEDDED, EMBEDDED_PATH, HubFiles, ModelSpec
from gateway.errors import ModelNotFound, ModelNotOnDisk, ModelNotServed, clip
from gateway.jobs.sampling_files import StableDiffusionFiles
from gateway.models.folders import folder_of, holds_weights, hub_snapshot, is_usable
from gateway.models.loras import LoraLibrary
from gateway.models.plain_files import PlainFiles
from gateway.models.suggestions import instead_of
from gateway.models.user_models import HubModel, LocalModel, hub_row, local_row


class Library:
    """Catalogue rows, the operator's folders and aliases as one set of exact names."""

    def __init__(
        self,
        models_dir: Path,
        *,
        default: str,
        aliases: Mapping[str, str] | None = None,
        local: Mapping[str, LocalModel] | None = None,
        hub: Mapping[str, HubModel] | None = None,
        loras: LoraLibrary | None = None,
    ) -> None:
        self._models_dir = models_dir.resolve()
        self.loras = loras or LoraLibrary([self._models_dir / "loras"])
        self.files: StableDiffusionFiles = PlainFiles(self.find)
        """Checkpoints, VAE files and textual inversions of Stable Diffusion."""
        self._specs = {spec.name: spec for spec in CATALOG}
        self._folders: dict[str, Path] = {EMBEDDED: EMBEDDED_PATH}
        for name, model in (local or {}).items():
            self._specs[name] = local_row(name, model)
            self._folders[name] = model.path.resolve()
        self._specs |= {name: hub_row(name, model) for name, model in (hub or {}).items()}
        self._aliases = dict(aliases or {})
        for target in self._aliases.values():
            self.find(target)
        self.default = self.find(default).name
        owners: dict[tuple[str, ...], str] = {}
        self._weights = {name: owners.setdefault(self._source(spec), name) for name, spec in self._specs.items()}

    @property
    def models_dir(self) -> Path:
        return self._models_dir

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """All rows except those whose name is an alias of another model."""
        return tuple(spec for name, spec in self._specs.items() if name not in self._aliases)

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
        """The row of exactly this name or alias; the default for None.

        Raises: ModelNotFound with the list of available models.
        """
        if name is None:
            name = self.default
        name = self._aliases.get(name, name)
        spec = self._specs.get(name)
        if spec is None:
            why, suggestion = instead_of(name) or ("See the models list", None)
            available = self.available
            details: dict[str, object] = {"available_models": available}
            if suggestion is not None:
                details["suggestion"] = suggestion
                available.sort(key=lambda there: suggestion != f"Use {there}")  # an error may show only the first ones
            raise ModelNotFound(f"Model '{clip(name)}' not found. {why}", param="model", details=details)
        return spec

    def find_folder(self, spec: ModelSpec) -> Path | None:
        """Like `folder`; None if the weights are not on disk."""
        return self._locate(spec) if spec.unavailable is None else None

    def folder(self, spec: ModelSpec) -> Path:
        """The absolute folder of the model's weights.

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
        return self._weights.get(name, name)

    def _source(self, spec: ModelSpec) -> tuple[str, ...]:
        return (spec.family, spec.geometry, str(self._folders.get(spec.name) or spec.repo or spec.name))

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
        own = self._folders.get(spec.name)
        if own is not None:
            # The operator's folder: some families have their transformer elsewhere than in `transformer/`.
            return own if is_usable(own, ()) else None
        names = [spec.name] if spec.stored_bits else [spec.name, spec.geometry]
        if spec.repo is not None:
            names.append(spec.repo.rpartition("/")[2])
        for folder in (self._models_dir / name for name in names):
            if holds_weights(folder) or (spec.files and folder.is_dir() and is_usable(folder, spec.files)):
                return folder
        if spec.repo is None:
            return None
        return self._further(HubFiles(repo=spec.repo, patterns=spec.files))

    def _further(self, files: HubFiles) -> Path | None:
        """The folder of a repository: put there by the operator, or downloaded by us or by another tool."""
        own, ours = self._models_dir / files.repo.rpartition("/")[2], folder_of(self._models_dir, files.repo)
        for folder in (own, ours):
            if is_usable(folder, files.patterns):
                return folder
        return hub_snapshot(files.repo, files.patterns)
