"""The models list: one object that OpenAI's clients and Xinference's both understand. Knows no connection."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from adapters.v1.payloads import known_model
from engine.catalog import ModelSpec
from gateway.errors import GatewayError, ModelNotFound
from gateway.models.library import Library
from gateway.ocr.packages import MODEL, check_vision, installed_at

ENGINE, VISION_ENGINE = "mflux", "mlx-vlm"
Folders = Mapping[str, Path]
"""Of the vision models that read text, by name."""


def served_names(library: Library) -> frozenset[str]:
    """Every name the library itself answers to."""
    return frozenset(library.aliases) | {spec.name for spec in library.specs}


def to_models(library: Library, vision: Folders, launched: Mapping[str, str]) -> dict[str, Any]:
    """The models that draw or read now, the operator's aliases of them, and those `launched` under uids of their own.

    Reads folders: call it in a thread. Source: OpenAI's list object.
    """
    rows = [_row(spec.name, spec, library) for spec in library.specs if library.draws(spec)]
    aliased = {name: library.find(name) for name in library.aliases}
    rows += [_row(name, spec, library) for name, spec in aliased.items() if library.draws(spec)]
    for uid, name in launched.items():
        with suppress(GatewayError):
            rows.append(to_model(name, library, vision) | {"id": uid})
    return {"object": "list", "data": [*rows, *_readers(vision)]}


def to_model(name: str, library: Library, vision: Folders) -> dict[str, Any]:
    """The model behind one exact name, OpenAI's own included. Reads folders: call it in a thread.

    Raises: ModelNotFound, ModelNotOnDisk; NotInstalled for a vision model without what runs it.
    """
    if not name:
        raise ModelNotFound(param="model")
    if name in vision:
        return _vision(name, vision[name])
    if name == MODEL and (installed := installed_at()) is not None:
        return _rapidocr(installed)
    return _row(name, library.find(known_model(name, served_names(library))), library)


def _row(name: str, spec: ModelSpec, library: Library) -> dict[str, Any]:
    """Source: `Model` of openai 3.52; `model_type` and below: what Xinference's clients read of a model.

    Ours: `max_references`, how many pictures an edit follows; 0 for a model that cannot.
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
        **_told_to_xinference(spec.geometry, ENGINE, spec.revision),
        "model_description": spec.description,
        "description": spec.description,
        "licence": spec.licence,
    }


def family_of(spec: ModelSpec) -> str:
    return spec.geometry


def _told_to_xinference(family: str, engine: str, revision: str | None) -> dict[str, Any]:
    """Source: `ImageModelFamilyV2.to_description` of Xinference 4.1; where a model runs is nobody's business."""
    return {
        "model_family": family,
        "model_engine": engine,
        "model_revision": revision,
        "controlnet": None,
        "address": None,
        "accelerators": None,
        "replica": 1,
    }


def abilities(spec: ModelSpec) -> list[str]:
    """In Xinference's words."""
    follows = spec.init_image or spec.max_references > 0
    said = {
        "text2image": not (spec.needs_mask or spec.needs_reference),
        "image2image": follows and not spec.needs_mask,
        "inpainting": spec.masks,
    }
    return [name for name, can in said.items() if can]


def _readers(vision: Folders) -> list[dict[str, Any]]:
    """What reads text here and now."""
    installed = installed_at()
    rows = [] if installed is None else [_rapidocr(installed)]
    for name, folder in vision.items():
        with suppress(GatewayError):
            rows.append(_vision(name, folder))
    return rows


def _rapidocr(installed_at: float) -> dict[str, Any]:
    description = "Reads the text of pictures and PDFs: Latin, Chinese and Japanese."
    row = _reader(MODEL, installed_at, "RapidAI", description)
    return row | {"model_engine": MODEL, "licence": "Apache-2.0"}


def _vision(name: str, folder: Path) -> dict[str, Any]:
    """Raises: NotInstalled, ModelNotOnDisk."""
    check_vision(name, folder, pdf=False)
    description = "A vision model that reads the text of pictures and PDFs."
    return _reader(name, folder.stat().st_mtime, "mflux-gateway", description)


def _reader(name: str, created_at: float, owned_by: str, description: str) -> dict[str, Any]:
    """What reads text, as a row like those of models that draw."""
    return {
        "id": name,
        "object": "model",
        "created": int(created_at),
        "owned_by": owned_by,
        "model_type": "image",
        "model_name": name,
        "model_ability": ["ocr"],
        **_told_to_xinference("ocr", VISION_ENGINE, None),
        "model_description": description,
        "description": description,
    }
