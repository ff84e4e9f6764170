"""The output folder: finished pictures under server-made names. Knows no jobs but by their id in a name."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.images import encode, open_picture, write_atomic
from gateway.provenance import Drawing, signed

NAME = re.compile(r"([0-9a-f]{32})\.(\d+)\.(\d+)\.png")


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished picture; `made_at` is Unix time in seconds."""

    png: bytes
    made_at: float


class Pictures:
    """PNG files `<job>.<attempt>.<n>.png` in one folder of mode 0700; `signs`: each says how it was drawn."""

    def __init__(self, folder: Path, *, signs: bool = True) -> None:
        self.folder = folder
        self._signs = signs

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, spooled: Path, name: str, drawing: Drawing | None = None) -> None:
        """Encode spooled pixels and put them on disk under `name`. Raises: StorageFull."""
        png = encode(spooled, format="png")
        write_atomic(self.folder, name, signed(png, drawing) if self._signs and drawing is not None else png)
        os.utime(self.folder / name, (time.time(),) * 2)  # a network disk goes by a clock of its own
        spooled.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """The PNG of that name, None where it is gone or the name is not one of ours."""
        return open_picture(self.folder, name)

    def there(self, names: Iterable[str]) -> set[str]:
        """Which of these are still on disk."""
        return {name for name in names if NAME.fullmatch(name) and (self.folder / name).is_file()}

    def stored(self, name: str) -> Stored | None:
        """As `read`, and when it was made."""
        png = self.read(name)
        if png is None:
            return None
        try:
            return Stored(png, (self.folder / name).stat().st_mtime)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        if NAME.fullmatch(name):
            (self.folder / name).unlink(missing_ok=True)

    def sweep(self, job_id: str, keep: set[str]) -> None:
        """Remove what a crash left of a job: pictures that no row names, and one that was being written."""
        for file in self.folder.glob(f"{job_id}.*"):
            if file.name not in keep:
                self.remove(file.name)
        for half in self.folder.glob(f".{job_id}.*.tmp"):
            half.unlink(missing_ok=True)

    def shrink(
        self,
        quota_bytes: int,
        *,
        spare: Collection[str] = (),
        age_s: Callable[[float], float] = lambda date: time.time() - date,
    ) -> None:
        """Remove the oldest pictures until the rest fits into the quota; those of the jobs `spare` stay.

        `age_s` says how long ago a file's date was.
        """
        ours = [(file, file.stat()) for file in self.folder.iterdir() if NAME.fullmatch(file.name)]
        total = sum(stat.st_size for _, stat in ours)
        for file, stat in sorted(ours, key=lambda pair: (-age_s(pair[1].st_mtime), pair[1].st_mtime)):
            if total <= quota_bytes:
                return
            if file.name.partition(".")[0] in spare:
                continue
            file.unlink(missing_ok=True)
            total -= stat.st_size
