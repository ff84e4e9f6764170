"""Quarantine of models that killed the engine during a load (R-16), until their files change or it is cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DEATHS = 2


class Quarantine:
    """Deaths by folder. `stamp_of` tells when a folder's files have changed."""

    def __init__(self) -> None:
        self._deaths: dict[str, tuple[int, str]] = {}

    def note(self, folder: Path) -> bool:
        """Note that the engine died while loading this folder; whether it is in quarantine now."""
        stamp = stamp_of(folder)
        deaths, before = self._deaths.get(str(folder), (0, stamp))
        self._deaths[str(folder)] = (deaths + 1 if before == stamp else 1, stamp)
        return self.holds(folder)

    def holds(self, folder: Path) -> bool:
        deaths, stamp = self._deaths.get(str(folder), (0, ""))
        return deaths >= DEATHS and stamp == stamp_of(folder)

    def clear(self, folder: Path) -> bool:
        """Take a folder out of quarantine; whether there were any deaths."""
        return self._deaths.pop(str(folder), None) is not None

    def to_json(self) -> dict[str, Any]:
        return {folder: list(known) for folder, known in self._deaths.items()}

    def read_json(self, state: dict[str, Any]) -> None:
        """Restore the state. Raises: ValueError, TypeError, AttributeError for data that `to_json` did not write."""
        self._deaths = {folder: (int(deaths), str(stamp)) for folder, (deaths, stamp) in state.items()}


def stamp_of(folder: Path) -> str:
    """A text that changes when a weights file does. A checkpoint in one file is that file."""
    files = [folder] if folder.is_file() else sorted(folder.glob("**/*.safetensors"))
    versions = [(status.st_mtime_ns, status.st_size) for status in map(Path.stat, files)]
    return f"{max((at for at, _ in versions), default=0)} {sum(size for _, size in versions)}"
