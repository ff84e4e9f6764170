"""What a model's weights are: their SHA-256, size and bits. Reads files; opens none of them as a model."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from engine.safetensors import UnsafeFile, inspect
from gateway.disk import opened_file

HASHED_MOST_BYTES = 256 * 1024 * 1024
"""Larger files would be read for seconds, only to be listed."""
_BITS = re.compile(r"[0-9]{1,2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(folder: Path) -> str | None:
    """Of the one file of the transformer; None where it has several, or is large and its name does not tell. Blocks.

    Source: the Hugging Face cache names large files by their SHA-256 and links to them.
    """
    files = sorted((folder / "transformer").glob("*.safetensors"))
    if len(files) != 1:
        return None
    file = files[0].resolve()
    if _SHA256.fullmatch(file.name):
        return file.name
    stat = file.stat()
    return _hashed(file, stat.st_mtime_ns, stat.st_size) if stat.st_size <= HASHED_MOST_BYTES else None


@lru_cache(maxsize=64)
def _hashed(file: Path, _changed_ns: int, _size: int) -> str:
    with opened_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def weights_bytes(source: Path) -> int:
    """What the weights of a model take on disk."""
    return sum(file.stat().st_size for file in source.rglob("*.safetensors"))


def stored_bits(source: Path) -> int | None:
    """What a model that mflux saved is quantised to; None for one that is not."""
    file = next(iter(sorted((source / "transformer").glob("*.safetensors"))), None)
    return None if file is None else _stored_bits(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _stored_bits(file: Path, _changed_ns: int) -> int | None:
    try:
        said = inspect(file).metadata.get("quantization_level", "")
    except (UnsafeFile, OSError):
        return None
    return int(said) if _BITS.fullmatch(said) else None
