"""Hashes of LoRA files: each file is read once; the result is stored by its path, time and size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.disk import opened_file
from gateway.private_files import write_private

log = logging.getLogger("gateway.loras")

SHORT_CHARS = 12
KEPT_MOST = 5000
_PIECE_BYTES = 1024 * 1024
_HEX = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True, slots=True)
class Hashes:
    """`sha256` is that of the whole file; `short` is A1111's hash in infotexts: of the weights alone, 12 digits."""

    sha256: str | None
    short: str


class HashKeeper:
    """Hashes of files that were read; stored in `file` if one is given."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stored: dict[str, list[str]] | None = None

    def of(self, version: tuple[Path, int, int], metadata: Mapping[str, str], *, read: bool) -> Hashes | None:
        """The hashes of this version of a file. If they are unknown, it is read if `read` is true. Blocks."""
        file, changed_ns, size = version
        key = f"{file}\n{changed_ns}\n{size}"
        with self._lock:
            hashes = self._load().get(key)
        if hashes is None and read:
            try:
                hashes = list(_read(file))
            except OSError:
                log.warning("a LoRA could not be read", exc_info=True)
                return None
            self._keep(key, hashes)
        noted_short = metadata.get("sshs_model_hash", "")
        short = noted_short[:SHORT_CHARS] if _HEX.fullmatch(noted_short) else hashes[1] if hashes else ""
        return Hashes(hashes[0] if hashes else None, short) if short else None

    def _load(self) -> dict[str, list[str]]:
        if self._stored is None:
            self._stored = {}
            if self._file is not None:
                with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                    stored = json.loads(self._file.read_text(encoding="utf-8"))
                    self._stored = {str(key): [str(sha), str(short)] for key, (sha, short) in stored.items()}
        return self._stored

    def _keep(self, key: str, hashes: list[str]) -> None:
        with self._lock:
            stored = self._load()
            stored[key] = hashes
            while len(stored) > KEPT_MOST:
                del stored[next(iter(stored))]
            if self._file is None:
                return
            unfinished = self._file.with_suffix(".part")
            with contextlib.suppress(OSError):
                write_private(unfinished, json.dumps(stored).encode())
                os.replace(unfinished, self._file)


def _read(file: Path) -> tuple[str, str]:
    """SHA-256 of the file, and the first digits of that of its weights.

    Source: A1111 1.10.1 modules/hashes.py addnet_hash_safetensors.
    """
    whole, weights = hashlib.sha256(), hashlib.sha256()
    with opened_file(file) as opened:
        first = opened.read(8)
        whole.update(first)
        header = int.from_bytes(first, "little")  # the length that the file states, which may be any number
        while piece := opened.read(_PIECE_BYTES):
            whole.update(piece)
            weights.update(memoryview(piece)[header:])
            header = max(0, header - len(piece))
    return whole.hexdigest(), weights.hexdigest()[:SHORT_CHARS]
