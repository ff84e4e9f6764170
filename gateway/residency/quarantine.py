"""Models that killed the engine while it loaded them (R-16): set aside until their files change or they are cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DEATHS = 2


class Quarantine:
    """By folder. `stamp_of` tells apart what lies in one at different times."""

    def __init__(self) -> None:
        self._deaths: dict[str, tuple[int, str]] = {}

    def note(self, folder: Path) -> bool:
        """The engine died loading this; whether it is set aside now."""
        stamp = stamp_of(folder)
        deaths, before = self._deaths.get(str(folder), (0, stamp))
        self._deaths[str(folder)] = (deaths + 1 if before == stamp else 1, stamp)
        return self.holds(folder)

    def holds(self, folder: Path) -> bool:
        deaths, stamp = self._deaths.get(str(folder), (0, ""))
        return deaths >= DEATHS and stamp == stamp_of(folder)

    def clear(self, folder: Path) -> bool:
        """Trust it again; whether there was anything against it."""
        return self._deaths.pop(str(folder), None) is not None

    def to_json(self) -> dict[str, Any]:
        return {folder: list(known) for folder, known in self._deaths.items()}

    def read_json(self, kept: dict[str, Any]) -> None:
        """Raises: ValueError, TypeError, AttributeError for what was not written by `to_json`."""
        self._deaths = {folder: (int(deaths), str(stamp)) for folder, (deaths, stamp) in kept.items()}


def stamp_of(folder: Path) -> str:
    """Changes when a weights file does."""
    seen = [(found.st_mtime_ns, found.st_size) for found in map(Path.stat, sorted(folder.glob("**/*.safetensors")))]
    return f"{max((at for at, _ in seen), default=0)} {sum(size for _, size in seen)}"
