"""The LoRAs of the library, in the format of AUTOMATIC1111."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.models.loras import LoraFile, LoraLibrary


def lora_rows(library: LoraLibrary) -> list[dict[str, Any]]:
    """One row for each usable LoRA. Blocks; reads no weights.

    Source: A1111 1.10.1 extensions-builtin/Lora: create_lora_json. The path is relative to the LoRA folder; metadata
    that names a folder is left out.
    """
    return [_row(library, lora) for lora in library.all() if lora.trouble is None]


def _row(library: LoraLibrary, lora: LoraFile) -> dict[str, Any]:
    notes = lora.notes
    metadata: dict[str, Any] = dict(notes.metadata)
    details = {
        "activation text": notes.activation_text,
        "preferred weight": notes.preferred_scale,
        "sd version": notes.base_model,
        "description": notes.description,
    }
    metadata.update((key, value) for key, value in details.items() if value)
    if hashes := library.hashes(lora, read=False):
        metadata["sshs_model_hash"] = hashes.short
    return {"name": lora.name, "alias": lora.alias, "path": f"{lora.name}.safetensors", "metadata": metadata}


def hashes(names: Iterable[str], library: LoraLibrary) -> dict[str, str]:
    """The hashes of LoRAs by name, 12 hex digits, of those that still exist. Blocks; a file is read once."""
    files = {lora.name: lora for lora in library.all()}
    all_hashes = {name: library.hashes(files[name]) for name in dict.fromkeys(names) if name in files}
    return {name: file_hashes.short for name, file_hashes in all_hashes.items() if file_hashes}
