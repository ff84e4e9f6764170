"""The operator's models: folders, files and hub repositories, with the abilities of a catalogue model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.catalog import CATALOG, ModelSpec
from engine.checkpoints.folders import INDEX, recognise_folder
from engine.checkpoints.kinds import NotACheckpoint, recognise_file
from gateway.errors import ModelNotFound
from gateway.models.checkpoint_rows import checkpoint_row
from gateway.models.checkpoints import CheckpointFile
from gateway.models.detect import recognise
from gateway.models.scan import Found
from gateway.models.weights import stored_bits, weights_bytes


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A folder, or a checkpoint in one file; `like` is the catalogue model with its architecture, None if it is
    detected from the folder. Stable Diffusion is always detected.
    """

    path: Path
    like: str | None = None


@dataclass(frozen=True, slots=True)
class HubModel:
    """A hub repository with the layout of the catalogue model `like`."""

    repo: str
    like: str
    revision: str | None = None


_ROWS = {spec.name: spec for spec in CATALOG}


def local_row(name: str, model: LocalModel) -> ModelSpec:
    """The row of a local model. Raises: ModelNotFound, for the operator, if the folder's model cannot be detected."""
    folder = model.path.resolve()
    if (checkpoint := _checkpoint(name, folder)) is not None:
        return checkpoint_row(checkpoint)
    like = _ROWS.get(model.like) if model.like else recognise(folder, CATALOG)
    if like is None:
        missing = "there is no such folder" if not folder.exists() else "it does not say which model it is"
        raise ModelNotFound(
            f"models.local.{name}: {missing}: {folder}. Say like: with a name of the models list", param="model"
        )
    bits = stored_bits(folder)
    disk_bytes = weights_bytes(folder)
    return like.model_copy(
        update={
            "name": name,
            "description": f"A local model like {like.name}",
            "repo": None,
            "revision": None,
            "files": (),
            "gated": False,
            "size_gb": round(disk_bytes / 1e9, 2) if disk_bytes else like.size_gb,
            "weights_gb": like.weights_gb or like.size_gb,
            "files_gb": like.size_gb,
            "stored_bits": bits,
            "quantize": None if bits else like.quantize,
        }
    )


def _checkpoint(name: str, path: Path) -> CheckpointFile | None:
    """A checkpoint of Stable Diffusion; None for a folder of another family.

    Raises: ModelNotFound, for the operator, for a file that is no checkpoint.
    """
    is_file = path.is_file()
    if not is_file and not (path / INDEX).is_file():
        return None
    found = Found(name, path, path.stat().st_size if is_file else weights_bytes(path), is_folder=not is_file)
    try:
        return CheckpointFile(name, found, recognise_file(path) if is_file else recognise_folder(path))
    except (NotACheckpoint, OSError) as error:
        if not is_file:
            return None
        why = error.reason if isinstance(error, NotACheckpoint) else "It cannot be read."
        raise ModelNotFound(f"models.local.{name}: {path}: {why}", param="model") from None


def hub_row(name: str, model: HubModel) -> ModelSpec:
    """The row of a hub model, whose licence and gate are unknown."""
    like = _ROWS[model.like]
    return like.model_copy(
        update={
            "name": name,
            "description": f"{model.repo}, like {like.name}",
            "repo": model.repo,
            "revision": model.revision,
            "gated": False,
            "licence": "as its repository says",
        }
    )
