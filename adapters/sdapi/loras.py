"""What a LoRA's file says of itself: the name its trainer gave it, and the hash by which others know it. Reads files.

Source: A1111 1.10.1 extensions-builtin/Lora/network.py NetworkOnDisk, modules/hashes.py addnet_hash_safetensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

log = logging.getLogger("adapters.sdapi")

HASH_CHARS = 12
MOST_HEADER_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_HEX = re.compile(r"[0-9a-f]{12,64}")


def alias_of(name: str, file: Path) -> str:
    """The name its trainer gave it, else its own. Blocks."""
    return _metadata(file).get("ss_output_name") or name


def names_by_alias(files: Mapping[str, Path]) -> dict[str, str]:
    """By what prompts may call the LoRAs of the library besides their names; what two claim is nobody's. Blocks."""
    found: dict[str, list[str]] = {}
    for name, file in files.items():
        found.setdefault(alias_of(name, file), []).append(name)
    return {alias: names[0] for alias, names in found.items() if len(names) == 1 and alias not in files}


def hashes(names: Iterable[str], files: Mapping[str, Path]) -> dict[str, str]:
    """Name to hash, 12 hex digits, of those that are still there. Blocks; a file is read once."""
    found = {name: _hash(files[name]) for name in dict.fromkeys(names) if name in files}
    return {name: text for name, text in found.items() if text}


def _hash(file: Path) -> str:
    noted = _metadata(file).get("sshs_model_hash", "")
    try:
        return noted[:HASH_CHARS] if _HEX.fullmatch(noted) else _weights_hash(*_version(file))[:HASH_CHARS]
    except OSError:
        return ""


def _metadata(file: Path) -> Mapping[str, str]:
    try:
        return _read_metadata(*_version(file))
    except (OSError, ValueError):
        log.warning("a LoRA's header cannot be read", exc_info=True)
        return {}


def _version(file: Path) -> tuple[Path, int, int]:
    stat = file.stat()
    return file, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=256)
def _read_metadata(file: Path, _changed_ns: int, _size: int) -> Mapping[str, str]:
    """Source: the safetensors format: length of the header, the header as JSON, the weights."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if size > MOST_HEADER_BYTES:
            raise ValueError("the header is too large")
        header = json.loads(opened.read(size))
    told = header.get("__metadata__") if isinstance(header, dict) else None
    return {key: value for key, value in (told or {}).items() if isinstance(value, str) and len(value) <= 256}


@lru_cache(maxsize=256)
def _weights_hash(file: Path, _changed_ns: int, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        begin = 8 + int.from_bytes(opened.read(8), "little")
        if begin >= size:
            return ""
        opened.seek(begin)
        while piece := opened.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
