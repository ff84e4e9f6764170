"""What was learned of files, by their path, time and size; stored in one file of JSON. Blocks; used from any thread."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from gateway.disk import read_file
from gateway.private_files import write_private

log = logging.getLogger("gateway.models")

KEPT_MOST = 10_000
FILE_MOST_BYTES = 16 * 2**20


class FileNotes:
    """Notes of any JSON by a key; `file` is where they are stored, None: only in memory."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._notes: dict[str, Any] | None = None
        self._changed = False

    def get(self, key: str) -> Any:
        """The note of this key; None where there is none."""
        with self._lock:
            return self._load().get(key)

    def put(self, key: str, note: Any) -> None:
        """Remember a note; `store` writes it to the disk."""
        with self._lock:
            notes = self._load()
            notes[key] = note
            self._changed = True
            while len(notes) > KEPT_MOST:
                del notes[next(iter(notes))]

    def store(self) -> None:
        """Write what is new to the disk; an error of the disk is logged, since all of it can be learned again."""
        with self._lock:
            if self._file is None or not self._changed or not self._file.parent.is_dir():
                return
            unfinished = self._file.with_suffix(".part")
            try:
                write_private(unfinished, json.dumps(self._load()).encode())
                os.replace(unfinished, self._file)
            except OSError:
                log.warning("notes about model files could not be stored", exc_info=True)
            else:
                self._changed = False

    def _load(self) -> dict[str, Any]:
        if self._notes is None:
            self._notes = {}
            if self._file is not None:
                with contextlib.suppress(OSError, ValueError, RecursionError):
                    stored = json.loads(read_file(self._file, FILE_MOST_BYTES))
                    self._notes = stored if isinstance(stored, dict) else {}
        return self._notes
