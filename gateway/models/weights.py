"""Weights of a model: their SHA-256, size and bits, read from files."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from engine.safetensors import UnsafeFile, inspect
from gateway.disk import opened_file
from gateway.models.listing import listing_of, transformer_weights

HASHED_MOST_BYTES = 256 * 1024 * 1024
"""Larger files would take seconds to hash, only for a list."""
_BITS = re.compile(r"[0-9]{1,2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(folder: Path) -> str | None:
    """SHA-256 of the transformer's only file; None if there are several, or if it is large and not named by it. Blocks.

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
    """Bytes of a model's weights on disk: of those in its folder, or of its only file."""
    listing = listing_of(source)
    if listing is None and source.is_file():
        return source.stat().st_size
    files = {} if listing is None else listing.files
    return sum(stamp.size for name, stamp in files.items() if name.endswith(".safetensors"))


def stored_bits(source: Path) -> int | None:
    """Bits to which a model that mflux or the engine saved is quantised; None for one that is not."""
    names = transformer_weights(source) or transformer_weights(source, "unet")
    return _stored_bits(source / names[0], (source / names[0]).stat().st_mtime_ns) if names else None


@lru_cache(maxsize=64)
def _stored_bits(file: Path, _changed_ns: int) -> int | None:
    try:
        bits = inspect(file).metadata.get("quantization_level", "")
    except (UnsafeFile, OSError):
        return None
    return int(bits) if _BITS.fullmatch(bits) else None
