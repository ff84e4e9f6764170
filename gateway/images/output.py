"""Output folder: finished images under server-made names. Knows jobs only by the id in a name."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.disk import TICK_NS, telling, write_atomic
from gateway.errors import ImageDamaged
from gateway.images.codec import encode, open_image
from gateway.images.png_chunks import END, is_whole
from gateway.images.provenance import Signature, signed
from gateway.jobs.facts import ImageDone
from gateway.private_files import FILE, make_folder, private_files, private_folder
from gateway.store.folder_health import SPOOL, Place

PLACE = "the output folder"
NAME = re.compile(r"([0-9a-f]{32})\.(\d{1,9})\.(\d{1,9})\.png")
ID_CHARS = 32
SHARED = 0o755
"""Mode of a shared folder that is created."""
READS = 0o044


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished image file; `made_at` is Unix time in seconds."""

    png: bytes
    made_at: float


@dataclass(frozen=True, slots=True)
class Note:
    """What the store knows of an image file: its length and its SHA-256 in hex. None: written by an older gateway."""

    length_bytes: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, done: ImageDone) -> Note:
        return cls(done.length_bytes, done.sha256)


UNKNOWN = Note()


class OutputFolder:
    """Image files `<job>.<attempt>.<n>.png` in one folder of mode 0700; `signs`: each contains how it was made.

    `infotexts`: signed files also contain A1111's infotext. `shares`: the folder keeps its mode, and users who may list
    it may read the images.
    """

    def __init__(self, folder: Path, *, signs: bool = True, infotexts: bool = True, shares: bool = False) -> None:
        self.folder = folder
        self.place = Place(PLACE, folder)
        self._signs = signs
        self._infotexts = infotexts
        self._shares = shares
        self._listed: tuple[int, frozenset[str]] | None = None
        """The folder's last modification time in ns, and the jobs that had images then."""

    def prepare(self) -> None:
        """Create or check the folder. Raises: PermissionError with a sentence if it cannot be made private."""
        if self._shares:
            return make_folder(self.folder, SHARED)
        private_folder(self.folder, "generation.output_dir")
        private_files(self.folder, lambda name: NAME.fullmatch(name) is not None)

    def keep(self, spooled: Path, name: str, signature: Signature | None = None) -> None:
        """Encode spooled pixels and write them durably under `name`. Raises: StorageFault."""
        with telling(SPOOL):
            png = encode(spooled, format="png")
        if self._signs and signature is not None:
            png = signed(png, signature.drawing, signature.infotext if self._infotexts else None)
        write_atomic(self.folder, name, png, PLACE)
        os.utime(self.folder / name, (time.time(),) * 2)  # a network disk has a clock of its own
        if self._shares:
            (self.folder / name).chmod(FILE | self.folder.stat().st_mode & READS)
        spooled.unlink(missing_ok=True)

    def note_of(self, name: str) -> Note | None:
        """The length and SHA-256 of a file that was just written. Raises: StorageFault."""
        png = self._opened(name)
        return None if png is None else Note(len(png), hashlib.sha256(png).hexdigest())

    def read(self, name: str, note: Note = UNKNOWN) -> bytes | None:
        """The PNG of that name; None if it is gone or the name is not a server-made one.

        Raises: ImageDamaged if it differs from what was written; StorageFault.
        """
        png = self._opened(name)
        if png is not None and not _is_as_noted(png, note):
            raise ImageDamaged
        return png

    def _opened(self, name: str) -> bytes | None:
        with telling(PLACE):
            png = open_image(self.folder, name)
            if png is None:
                self._check_there()
            return png

    def _check_there(self) -> None:
        """Raises: StorageFault if the folder is on a disk that is not mounted."""
        with telling(PLACE):
            if (fault := self.place.mount_fault()) is not None:
                raise fault

    def existing(self, names: Iterable[str]) -> set[str]:
        """Those of these names that are still on disk. Raises: StorageFault."""
        self._check_there()
        return {name for name in names if NAME.fullmatch(name) and (self.folder / name).is_file()}

    def jobs_there(self) -> frozenset[str]:
        """Ids of jobs that may still have an image on disk. Raises: StorageFault."""
        self._check_there()
        with telling(PLACE):
            if not self.folder.is_dir():  # it was removed, and is created again with the next image
                return frozenset()
            changed_ns = self.folder.stat().st_mtime_ns
            if self._listed is None or self._listed[0] != changed_ns:
                jobs = frozenset(
                    name[:ID_CHARS] for name in os.listdir(self.folder) if name[ID_CHARS:].endswith(".png")
                )
                # A change in the same tick as the listing would not change the modification time.
                self._listed = (changed_ns if time.time_ns() - changed_ns > TICK_NS else 0, jobs)
            return self._listed[1]

    def damaged(self, done_images: Iterable[ImageDone]) -> set[str]:
        """Those of these files that differ from the stored length, or, without one, do not end like a PNG."""
        valid = (done for done in done_images if NAME.fullmatch(done.file))
        return {done.file for done in valid if self._is_damaged(done.file, Note.of(done))}

    def _is_damaged(self, name: str, note: Note) -> bool:
        try:
            if note.length_bytes is None:
                with (self.folder / name).open("rb") as file:
                    file.seek(-len(END), os.SEEK_END)
                    return file.read() != END
            return (self.folder / name).stat().st_size != note.length_bytes
        except FileNotFoundError:
            return False
        except OSError:  # shorter than the end of a PNG, or unreadable
            return True

    def stored(self, name: str, note: Note = UNKNOWN) -> Stored | None:
        """Like `read`, with the time at which the file was made."""
        png = self.read(name, note)
        if png is None:
            return None
        try:
            return Stored(png, (self.folder / name).stat().st_mtime)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove an image file. Raises: StorageFault."""
        if NAME.fullmatch(name):
            with telling(PLACE):
                (self.folder / name).unlink(missing_ok=True)

    def sweep(self, job_id: str, keep: set[str], attempt: int | None = None) -> None:
        """Remove what a crash left of a job: images that no row names, and a half-written one.

        `attempt` is the one that crashed: another process may be writing those of a later one; None: there is none.
        """
        attempts = [""] if attempt is None else [f"{number}." for number in range(1, attempt + 1)]
        for prefix in (f"{job_id}.{of_attempt}" for of_attempt in attempts):
            for file in self.folder.glob(f"{prefix}*"):
                if file.name not in keep:
                    self.remove(file.name)
            for half in self.folder.glob(f".{prefix}*.tmp"):
                half.unlink(missing_ok=True)

    def shrink(
        self,
        quota_bytes: int,
        *,
        spare: Collection[str] = (),
        age_s: Callable[[float], float] = lambda date: time.time() - date,
    ) -> None:
        """Remove the oldest images until the rest fits into the quota; those of the jobs `spare` stay.

        `age_s` returns how many seconds ago a file's date was.
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


def _is_as_noted(png: bytes, note: Note) -> bool:
    if note.length_bytes is None or note.sha256 is None:
        return is_whole(png)
    return len(png) == note.length_bytes and hashlib.sha256(png).hexdigest() == note.sha256
