"""By which hashes a LoRA is known: each file is read once, and remembered on disk by its place, time and size."""

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
    """`sha256` is the whole file's; `short` is what A1111 writes into an infotext: of the weights alone, 12 digits."""

    sha256: str | None
    short: str


class HashKeeper:
    """Hashes of files that were read; kept in `file` where one is given."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, list[str]] | None = None

    def of(self, version: tuple[Path, int, int], metadata: Mapping[str, str], *, read: bool) -> Hashes | None:
        """Of this version of a file. One that is not known is read where `read` says so. Blocks."""
        file, changed_ns, size = version
        key = f"{file}\n{changed_ns}\n{size}"
        with self._lock:
            known = self._load().get(key)
        if known is None and read:
            try:
                known = list(_read(file))
            except OSError:
                log.warning("a LoRA could not be read", exc_info=True)
                return None
            self._keep(key, known)
        noted = metadata.get("sshs_model_hash", "")
        short = noted[:SHORT_CHARS] if _HEX.fullmatch(noted) else known[1] if known else ""
        return Hashes(known[0] if known else None, short) if short else None

    def _load(self) -> dict[str, list[str]]:
        if self._known is None:
            self._known = {}
            if self._file is not None:
                with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                    kept = json.loads(self._file.read_text(encoding="utf-8"))
                    self._known = {str(key): [str(sha), str(short)] for key, (sha, short) in kept.items()}
        return self._known

    def _keep(self, key: str, hashes: list[str]) -> None:
        with self._lock:
            known = self._load()
            known[key] = hashes
            while len(known) > KEPT_MOST:
                del known[next(iter(known))]
            if self._file is None:
                return
            unfinished = self._file.with_suffix(".part")
            with contextlib.suppress(OSError):
                write_private(unfinished, json.dumps(known).encode())
                os.replace(unfinished, self._file)


def _read(file: Path) -> tuple[str, str]:
    """SHA-256 of the file, and the first digits of that of its weights.

    Source: A1111 1.10.1 modules/hashes.py addnet_hash_safetensors.
    """
    whole, weights = hashlib.sha256(), hashlib.sha256()
    with opened_file(file) as opened:
        first = opened.read(8)
        whole.update(first)
        header = int.from_bytes(first, "little")  # as long as the file says, which may be any length
        while piece := opened.read(_PIECE_BYTES):
            whole.update(piece)
            weights.update(memoryview(piece)[header:])
            header = max(0, header - len(piece))
    return whole.hexdigest(), weights.hexdigest()[:SHORT_CHARS]
