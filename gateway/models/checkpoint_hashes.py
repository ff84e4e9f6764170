"""Hashes of checkpoints, as A1111 names them: computed once in a thread of their own, and kept by path, time and size.

Source: A1111 1.10.1 modules/hashes.py, sd_models.py model_hash.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from gateway.disk import opened_file
from gateway.models.file_notes import FileNotes
from gateway.models.scan import Found

log = logging.getLogger("gateway.models")

SHORT_CHARS = 10
OLD_CHARS = 8
OLD_OFFSET_BYTES = 2**20
OLD_BYTES = 2**16
_PIECE_BYTES = 4 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CheckpointHashes:
    """SHA-256 of whole files. The thread reads one file after the other and rests as long as it reads, so that models
    are loaded from the same disk meanwhile; it ends when nothing is left.
    """

    def __init__(self, file: Path | None) -> None:
        self._notes = FileNotes(file)
        self._lock = threading.Lock()
        self._waiting: dict[str, Found] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def of(self, found: Found) -> str | None:
        """The SHA-256 of this version of a file; None until it is known. Does not block."""
        stored = self._notes.get(found.key)
        return stored if isinstance(stored, str) and _SHA256.fullmatch(stored) else None

    def want(self, files: Iterable[Found]) -> None:
        """Have the hashes of these files computed, and no others any more."""
        unknown = {found.key: found for found in files if not found.is_folder and self.of(found) is None}
        with self._lock:
            self._waiting = unknown
            if unknown and self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="checkpoint hashes", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until all that is wanted is known."""
        while (thread := self._thread) is not None:
            thread.join()

    def stop(self) -> None:
        """End the thread after the piece that it reads."""
        self._stopping.set()

    def _run(self) -> None:
        while (found := self._next()) is not None:
            try:
                digest = self._read(found)
            except OSError:
                log.warning("a checkpoint could not be read for its hash", exc_info=True)
                continue
            if digest is not None:
                self._notes.put(found.key, digest)
                self._notes.store()

    def _next(self) -> Found | None:
        with self._lock:
            if not self._waiting or self._stopping.is_set():
                self._thread = None
                return None
            return self._waiting.pop(next(iter(self._waiting)))

    def _read(self, found: Found) -> str | None:
        """None where the file changed meanwhile, or the thread is to end. Raises: OSError."""
        digest = hashlib.sha256()
        with opened_file(found.path) as opened:
            begun = time.monotonic()
            while piece := opened.read(_PIECE_BYTES):
                digest.update(piece)
                if self._stopping.wait(time.monotonic() - begun):
                    return None
                begun = time.monotonic()
        status = found.path.stat()
        is_same = (status.st_mtime_ns, status.st_size) == (found.changed_ns, found.size_bytes)
        return digest.hexdigest() if is_same else None


def old_hash(file: Path) -> str:
    """A1111's hash of 8 digits, which infotexts had until 2023: of 64 KiB in the file. Raises: OSError."""
    with opened_file(file) as opened:
        opened.seek(OLD_OFFSET_BYTES)
        return hashlib.sha256(opened.read(OLD_BYTES)).hexdigest()[:OLD_CHARS]
