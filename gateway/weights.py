"""What identifies a model's weights: the SHA-256 of its transformer. Reads files; opens none of them as a model."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

HASHED_MOST_BYTES = 256 * 1024 * 1024
"""Larger files would be read for seconds, only to be listed."""
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
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
