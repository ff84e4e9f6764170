"""Models as OpenAI's clients and Xinference's read them, in objects that both understand. Knows no connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from adapters.v1.requests import find_model
from adapters.v1.response_schemas import DrawingModel, Instance, Model, Models
from adapters.v1.state import LaunchRecord
from engine.catalog import ModelSpec
from gateway.errors import GatewayError
from gateway.models.library import Library
from gateway.ocr.packages import MODEL, check_vision, installed_at

ENGINE, VISION_ENGINE = "mflux", "mlx-vlm"
Folders = Mapping[str, Path]
"""Folders of the vision models that read text, by name."""


def to_models(library: Library, vision: Folders, models_by_uid: Mapping[str, str]) -> Models:
    """The models that draw or read now, the operator's aliases of them, and the launched models under their uids.

    Reads folders: call it in a thread. Source: OpenAI's list object.
    """
    library.refresh()
    rows: list[Model] = [_to_drawing_model(spec.name, spec, library) for spec in library.specs if library.draws(spec)]
    specs_by_alias = {name: library.find(name) for name in library.aliases}
    rows += [_to_drawing_model(name, spec, library) for name, spec in specs_by_alias.items() if library.draws(spec)]
    for uid, name in models_by_uid.items():
        with suppress(GatewayError):
            rows.append({**to_model(name, library, vision), "id": uid})
    return {"object": "list", "data": [*rows, *_to_readers(vision)]}


def to_model(name: str, library: Library, vision: Folders) -> Model:
    """The model behind one exact name, OpenAI's own included. Reads folders: call it in a thread.

    Raises: ModelNotFound, ModelNotOnDisk; NotInstalled for a vision model whose packages are missing.
    """
    if name in vision:
        return _to_vision_model(name, vision[name])
    if name == MODEL and (installed := installed_at()) is not None:
        return _to_rapidocr(installed)
    return _to_drawing_model(name, find_model(name, library), library)


def to_instance(record: LaunchRecord, spec: ModelSpec | None) -> Instance:
    """A launch as a running model; `spec` is None for a model that reads text.

    Source: `InstanceInfo` and `ReplicaStatus` of Xinference 4.1. Where a replica runs is not told.
    """
    return {
        "model_name": record.model,
        "model_uid": record.uid,
        "model_version": None if spec is None else spec.revision,
        "model_ability": ["ocr"] if spec is None else abilities(spec),
        "replica": 1,
        "status": record.status,
        "instance_created_ts": int(record.created_at),
        "n_worker": 1,
        "replica_statuses": [
            {
                "replica_id": 0,
                "replica_model_uid": f"{record.uid}-0",
                "worker_address": "",
                "status": record.status,
                "model_state": record.status.lower(),
                "created_ts": int(record.created_at),
                "error_message": record.failure,
            }
        ],
    }


def abilities(spec: ModelSpec) -> list[str]:
    """What a model can do, in Xinference's words."""
    takes_image = spec.init_image or spec.max_references > 0
    able = {
        "text2image": not (spec.needs_mask or spec.needs_reference),
        "image2image": takes_image and not spec.needs_mask,
        "inpainting": spec.masks,
    }
    return [name for name, is_able in able.items() if is_able]


def reader_names(vision: Iterable[str]) -> list[str]:
    """The models that read text: the built-in one where it is installed, and those of the settings."""
    return [*([] if installed_at() is None else [MODEL]), *vision]


def _to_drawing_model(name: str, spec: ModelSpec, library: Library) -> DrawingModel:
    """Source: `Model` of openai 3.52; `model_type` and below: `ImageModelFamilyV2.to_description` of Xinference 4.1.

    Where a model runs is not told.
    """
    folder = library.folder(spec)
    return {
        "id": name,
        "object": "model",
        "created": int(folder.stat().st_mtime),
        "owned_by": spec.repo.partition("/")[0] if spec.repo else "mflux-gateway",
        "model_type": "image",
        "model_name": spec.name,
        "model_ability": abilities(spec),
        "max_references": spec.max_references,
        "model_family": spec.geometry,
        "model_engine": ENGINE,
        "model_revision": spec.revision,
        "controlnet": None,
        "address": None,
        "accelerators": None,
        "replica": 1,
        "model_description": spec.description,
        "description": spec.description,
        "licence": spec.licence,
    }


def _to_readers(vision: Folders) -> list[Model]:
    """The models that can read text now."""
    installed = installed_at()
    rows = [] if installed is None else [_to_rapidocr(installed)]
    for name, folder in vision.items():
        with suppress(GatewayError):
            rows.append(_to_vision_model(name, folder))
    return rows


def _to_rapidocr(installed_at: float) -> Model:
    description = "Reads the text of pictures and PDFs: Latin, Chinese and Japanese."
    row = _to_reader(MODEL, installed_at, "RapidAI", description, engine=MODEL)
    row["licence"] = "Apache-2.0"
    return row


def _to_vision_model(name: str, folder: Path) -> Model:
    """Raises: NotInstalled, ModelNotOnDisk."""
    check_vision(name, folder, pdf=False)
    description = "A vision model that reads the text of pictures and PDFs."
    return _to_reader(name, folder.stat().st_mtime, "mflux-gateway", description)


def _to_reader(name: str, created_at: float, owned_by: str, description: str, *, engine: str = VISION_ENGINE) -> Model:
    """A model that reads text, with the keys of those that draw."""
    return {
        "id": name,
        "object": "model",
        "created": int(created_at),
        "owned_by": owned_by,
        "model_type": "image",
        "model_name": name,
        "model_ability": ["ocr"],
        "model_family": "ocr",
        "model_engine": engine,
        "model_revision": None,
        "controlnet": None,
        "address": None,
        "accelerators": None,
        "replica": 1,
        "model_description": description,
        "description": description,
    }
