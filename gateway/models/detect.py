"""Detection of the catalogue model in a folder of weights, from small files in it; the weights are not read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.catalog import ModelSpec
from gateway.disk import read_file

FILE_BYTES = 16 * 1024 * 1024
"""Largest JSON file that is read; an index of a thousand weights is smaller than 1 MB."""

_Told = Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]


def _klein(index: Mapping[str, Any], transformer: Mapping[str, Any]) -> str | None:
    size = {"5": "4b", "8": "9b"}.get(str(transformer.get("num_layers")))
    return size and f"flux2-klein-{'' if index.get('is_distilled') else 'base-'}{size}"


_PIPELINES: Mapping[str, _Told] = {
    "Flux2KleinPipeline": _klein,
    "FluxPipeline": lambda _, transformer: "dev" if transformer.get("guidance_embeds") else "schnell",
    "FluxKontextPipeline": lambda *_: "dev-kontext",
    "FluxFillPipeline": lambda *_: "dev-fill",
    "QwenImagePipeline": lambda *_: "qwen-image",
    "QwenImageEditPlusPipeline": lambda _, transformer: (
        "qwen-image-edit-2511" if transformer.get("zero_cond_t") else "qwen-image-edit"
    ),
}
"""`_class_name` in diffusers' model_index.json -> a geometry, from that file and transformer/config.json."""


def recognise(folder: Path, rows: Iterable[ModelSpec]) -> ModelSpec | None:
    """The catalogue row with the folder's architecture: as noted by mflux when it saved the model, by diffusers, by the
    hub's cache or in the folder's own name. None if none of them names one.
    """
    whole = [row for row in rows if row.repo and not (row.quantize or row.stored_bits or row.unavailable)]
    for name in (*_noted_by_mflux(folder), *_named_by_diffusers(folder), *_cached_from(folder)):
        rows_of_name = [row for row in whole if name.lower() in (row.geometry.lower(), (row.repo or "").lower())]
        if rows_of_name:
            return rows_of_name[0]
    return _row_named_in(folder.name, whole)


def _noted_by_mflux(folder: Path) -> list[str]:
    """Names in mflux_model.json. Source: mflux 0.24, SavedModelInfo."""
    note = _json(folder / "mflux_model.json")
    names = (note.get("base_model"), note.get("model_name"), _dict(note.get("upstream")).get("repo_id"))
    return [name for name in names if isinstance(name, str)]


def _named_by_diffusers(folder: Path) -> list[str]:
    index = _json(folder / "model_index.json")
    geometry_of = _PIPELINES.get(str(index.get("_class_name")))
    geometry = geometry_of(index, _json(folder / "transformer" / "config.json")) if geometry_of else None
    origin = index.get("_name_or_path")
    return [name for name in (origin, geometry) if isinstance(name, str)]


def _cached_from(folder: Path) -> list[str]:
    """Names from a path in the hub's cache: `.../models--org--name/snapshots/commit`."""
    return [part.removeprefix("models--").replace("--", "/", 1) for part in folder.parts if part.startswith("models--")]


def _row_named_in(folder: str, rows: list[ModelSpec]) -> ModelSpec | None:
    """The row whose name or repository is part of the folder's name, the longest first, as in mflux."""
    names = {name.lower(): row for row in reversed(rows) for name in (row.name, (row.repo or "").rpartition("/")[2])}
    for name in sorted(names, key=len, reverse=True):
        if re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9.])", folder.lower()):
            return names[name]
    return None


def _json(file: Path) -> dict[str, Any]:
    """The JSON object in the file; empty if there is none."""
    try:
        return _dict(json.loads(read_file(file, FILE_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
