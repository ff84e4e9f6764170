"""The operator's models: folders and hub repositories, with the abilities of a catalogue model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.catalog import CATALOG, ModelSpec
from gateway.errors import ModelNotFound
from gateway.models.detect import recognise
from gateway.models.weights import stored_bits, weights_bytes


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A folder; `like` is the catalogue model with its architecture, None if it is detected from the folder."""

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
    like = _ROWS.get(model.like) if model.like else recognise(folder, CATALOG)
    if like is None:
        missing = "there is no such folder" if not folder.is_dir() else "it does not say which model it is"
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
