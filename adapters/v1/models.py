"""The models list: one object that OpenAI's clients and Xinference's both understand. Knows no connection."""

from __future__ import annotations

from typing import Any

from adapters.v1.payloads import known_model
from engine.catalog import ModelSpec
from gateway.errors import ModelNotFound
from gateway.library import Library
from gateway.ocr.packages import MODEL, installed_at


def served_names(library: Library) -> frozenset[str]:
    """Every name the library itself answers to."""
    return frozenset(library.aliases) | {spec.name for spec in library.specs}


def to_models(library: Library) -> dict[str, Any]:
    """The models that can be drawn with now, and the operator's aliases of them. Reads folders: call it in a thread.

    Source: OpenAI's list object.
    """
    rows = [_row(spec.name, spec, library) for spec in library.specs if library.on_disk(spec)]
    aliased = {name: library.find(name) for name in library.aliases}
    rows += [_row(name, spec, library) for name, spec in aliased.items() if library.on_disk(spec)]
    return {"object": "list", "data": [*rows, *_reader()]}


def to_model(name: str, library: Library) -> dict[str, Any]:
    """The model behind one exact name, OpenAI's own included. Reads folders: call it in a thread.

    Raises: ModelNotFound, ModelNotOnDisk.
    """
    if not name:
        raise ModelNotFound(param="model")
    if name == MODEL and (rows := _reader()):
        return rows[0]
    return _row(name, library.find(known_model(name, served_names(library))), library)


def _row(name: str, spec: ModelSpec, library: Library) -> dict[str, Any]:
    """Source: `Model` of openai 3.52; `model_type` and below: what xinference_client reads of a model."""
    folder = library.folder(spec)
    return {
        "id": name,
        "object": "model",
        "created": int(folder.stat().st_mtime),
        "owned_by": spec.repo.partition("/")[0] if spec.repo else "mflux-gateway",
        "model_type": "image",
        "model_name": spec.name,
        "model_ability": ["text2image", "image2image", "inpainting"],
        "model_family": spec.geometry,
        "model_description": spec.description,
        "description": spec.description,
        "licence": spec.licence,
    }


def _reader() -> list[dict[str, Any]]:
    """What reads text, as a row like those of models that draw; none where it is not installed."""
    installed = installed_at()
    if installed is None:
        return []
    description = "Reads the text of pictures and PDFs: Latin, Chinese and Japanese."
    row = {
        "id": MODEL,
        "object": "model",
        "created": int(installed),
        "owned_by": "RapidAI",
        "model_type": "image",
        "model_name": MODEL,
        "model_ability": ["ocr"],
        "model_family": "ocr",
        "model_description": description,
        "description": description,
        "licence": "Apache-2.0",
    }
    return [row]
