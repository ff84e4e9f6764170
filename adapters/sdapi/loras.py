"""The LoRAs of the library as AUTOMATIC1111's clients know them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.models.loras import LoraFile, LoraLibrary


def lora_rows(library: LoraLibrary) -> list[dict[str, Any]]:
    """Those that can be used. Blocks; reads no weights.

    Source: A1111 1.10.1 extensions-builtin/Lora: create_lora_json. The path is that in its folder; of the
    metadata, what names no folder.
    """
    return [_row(library, lora) for lora in library.all() if lora.trouble is None]


def _row(library: LoraLibrary, lora: LoraFile) -> dict[str, Any]:
    notes = lora.notes
    metadata: dict[str, Any] = dict(notes.told)
    said = {
        "activation text": notes.activation_text,
        "preferred weight": notes.preferred_scale,
        "sd version": notes.base_model,
        "description": notes.description,
    }
    metadata.update((key, value) for key, value in said.items() if value)
    if hashes := library.hashes(lora, read=False):
        metadata["sshs_model_hash"] = hashes.short
    return {"name": lora.name, "alias": lora.alias, "path": f"{lora.name}.safetensors", "metadata": metadata}


def hashes(names: Iterable[str], library: LoraLibrary) -> dict[str, str]:
    """Name to hash, 12 hex digits, of those that are still there. Blocks; a file is read once."""
    there = {lora.name: lora for lora in library.all()}
    found = {name: library.hashes(there[name]) for name in dict.fromkeys(names) if name in there}
    return {name: known.short for name, known in found.items() if known}
