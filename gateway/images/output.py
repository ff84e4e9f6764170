"""Output: finished images under server-made names, in one place. Knows jobs only by the id in a name."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.disk import TICK_NS, telling
from gateway.errors import ImageDamaged
from gateway.files.base import Files, FileStat
from gateway.files.folder import Folder
from gateway.images.codec import encode
from gateway.images.png_chunks import END, is_whole
from gateway.images.provenance import Signature, signed
from gateway.jobs.facts import ImageDone
from gateway.store.folder_health import SPOOL, place_of

PLACE = "the output folder"
NAME = re.compile(r"([0-9a-f]{32})\.(\d{1,9})\.(\d{1,9})\.png")
ID_CHARS = 32
YOUNG_S = 60.0
"""An image of a shared place that is younger than that stays: the commit that names it may be under way."""


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


def image_folder(folder: Path, *, opens: bool = False, is_shared: bool = False) -> Folder:
    """A folder of finished images; `opens` and `is_shared` as for `Folder`."""
    setting = "the folder" if is_shared else "generation.output_dir"
    return Folder(
        folder,
        place=PLACE,
        setting=setting,
        is_ours=lambda name: NAME.fullmatch(name) is not None,
        opens=opens,
        is_shared=is_shared,
    )


class OutputFolder:
    """Image files `<job>.<attempt>.<n>.png` in one place; `signs`: each contains how it was made.

    A folder has mode 0700. `infotexts`: signed files also contain A1111's infotext. `shares`: a folder keeps its mode,
    and users who may list it may read the images.
    """

    def __init__(
        self, files: Files | Path, *, signs: bool = True, infotexts: bool = True, shares: bool = False
    ) -> None:
        if isinstance(files, Path):
            files = image_folder(files, opens=shares)
        self.files: Files = files
        self.place = place_of(self.files)
        self.run = self.files.run
        """Runs one of the methods below, which all block, in a thread."""
        self._signs = signs
        self._infotexts = infotexts
        self._listed: tuple[int, frozenset[str]] | None = None
        """The folder's last modification time in ns, and the jobs that had images then."""
        self._notes: dict[str, Note] = {}
        """Notes on files of a shared place that were just written: they are not read back."""

    @property
    def folder(self) -> Path:
        """The folder of the images. Raises: ValueError where they are in none."""
        if self.files.root is None:
            raise ValueError("the images are in no folder")
        return self.files.root

    def prepare(self) -> None:
        """Create or check the place.

        Raises: PermissionError with a sentence if a folder cannot be made private; FilesRefused.
        """
        self.files.prepare()

    def keep(self, spooled: Path, name: str, signature: Signature | None = None) -> None:
        """Encode spooled pixels and write them durably under `name`. Raises: StorageFault, KeyTaken."""
        with telling(SPOOL):
            png = encode(spooled, format="png")
        if self._signs and signature is not None:
            png = signed(png, signature.drawing, signature.infotext if self._infotexts else None)
        self.files.put(name, png, create=self.files.is_shared)
        if self.files.is_shared:
            self._notes[name] = _note_of(png)
        spooled.unlink(missing_ok=True)

    def note_of(self, name: str) -> Note | None:
        """The length and SHA-256 of a file that was just written. Raises: StorageFault."""
        if (note := self._notes.pop(name, None)) is not None:
            return note
        png = self._opened(name)
        return None if png is None else _note_of(png)

    def read(self, name: str, note: Note = UNKNOWN) -> bytes | None:
        """The PNG of that name; None if it is gone or the name is not a server-made one.

        Raises: ImageDamaged if it differs from what was written; StorageFault.
        """
        png = self._opened(name)
        if png is not None and not _is_as_noted(png, note):
            raise ImageDamaged
        return png

    def _opened(self, name: str) -> bytes | None:
        png = self.files.get(name) if NAME.fullmatch(name) else None
        if png is None:
            self._check_there()
        return png

    def _check_there(self) -> None:
        """Raises: StorageFault if the folder is on a disk that is not mounted."""
        with telling(self.place.name):
            if (fault := self.place.mount_fault()) is not None:
                raise fault

    def existing(self, names: Iterable[str]) -> set[str]:
        """Those of these names that are still there. Raises: StorageFault."""
        self._check_there()
        return set(self.files.stats(name for name in names if NAME.fullmatch(name)))

    def check(self, done_images: Iterable[ImageDone]) -> tuple[set[str], set[str]]:
        """The files of these images that are there, and those of them that are `damaged`.

        Raises: StorageFault.
        """
        self._check_there()
        valid = [done for done in done_images if NAME.fullmatch(done.file)]
        stats = self.files.stats(done.file for done in valid)
        return set(stats), {done.file for done in valid if self._is_damaged(done, stats.get(done.file))}

    def damaged(self, done_images: Iterable[ImageDone]) -> set[str]:
        """Those of these files that differ from the stored length, or, without one, do not end like a PNG."""
        return self.check(done_images)[1]

    def _is_damaged(self, done: ImageDone, stat: FileStat | None) -> bool:
        """Whether a file differs from the stored length or, without one, does not end like a PNG."""
        if stat is None:
            return False
        if done.length_bytes is not None:
            return stat.bytes != done.length_bytes
        return self.files.tail(done.file, len(END)) != END

    def url(self, name: str, valid_s: float) -> str | None:
        """An address at which anybody can read an image for that long; None where there is none. Raises: StorageFault,
        ValueError for a name that is not a server-made one.
        """
        return self.files.url(name, valid_s)

    def jobs_there(self) -> frozenset[str]:
        """Ids of jobs that may still have an image on disk. Raises: StorageFault."""
        self._check_there()
        if self.files.root is None:
            return _jobs_of(name for name, _ in self.files.list())
        with telling(self.place.name):
            if not self.folder.is_dir():  # it was removed, and is created again with the next image
                return frozenset()
            changed_ns = self.folder.stat().st_mtime_ns
            if self._listed is None or self._listed[0] != changed_ns:
                jobs = _jobs_of(os.listdir(self.folder))
                # A change in the same tick as the listing would not change the modification time; of a shared folder
                # it is another clock's.
                is_old = not self.files.is_shared and time.time_ns() - changed_ns > TICK_NS
                self._listed = (changed_ns if is_old else 0, jobs)
            return self._listed[1]

    def stored(self, name: str, note: Note = UNKNOWN) -> Stored | None:
        """Like `read`, with the time at which the file was made."""
        png = self.read(name, note)
        stat = None if png is None else self.files.stat(name)
        return None if png is None or stat is None else Stored(png, stat.made_at)

    def remove(self, name: str) -> None:
        """Remove an image file. Raises: StorageFault."""
        if NAME.fullmatch(name):
            self.files.remove(name)

    def sweep(self, job_id: str, keep: Collection[str], attempt: int | None = None) -> None:
        """Remove what a crash left of a job: images that no row names, and a half-written one.

        `attempt` is the one that crashed: files of later ones stay, as another process may be writing them; None: the
        job has no later one. Raises: StorageFault.
        """
        attempts = [None] if attempt is None else range(1, attempt + 1)
        for prefix in (f"{job_id}." if number is None else f"{job_id}.{number}." for number in attempts):
            for name, _ in list(self.files.list(prefix)):
                if name not in keep:
                    self.remove(name)
            self.files.remove_halves(prefix)

    def shrink(
        self,
        quota_bytes: int,
        *,
        spare: Collection[str] = (),
        age_s: Callable[[float], float] = lambda date: time.time() - date,
    ) -> None:
        """Remove the oldest images until the rest fits into the quota; those of the jobs `spare` stay.

        `age_s` returns how many seconds ago a file's date was. Processes that do this at the same time, in a shared
        place, remove the same images: all go by its clock, then by name.
        """

        def order_of(image: tuple[str, FileStat]) -> tuple[float, float, str]:
            name, stat = image
            return 0.0 if self.files.is_shared else -age_s(stat.made_at), round(stat.made_at, 3), name

        ours = [(name, stat) for name, stat in self.files.list() if NAME.fullmatch(name)]
        total = sum(stat.bytes for _, stat in ours)
        for name, stat in sorted(ours, key=order_of):
            if total <= quota_bytes or (stat.age_s is not None and stat.age_s < YOUNG_S):
                return
            if name.partition(".")[0] not in spare:
                self.files.remove(name)
                total -= stat.bytes


def _jobs_of(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name[:ID_CHARS] for name in names if name[ID_CHARS:].endswith(".png"))


def _note_of(png: bytes) -> Note:
    return Note(len(png), hashlib.sha256(png).hexdigest())


def _is_as_noted(png: bytes, note: Note) -> bool:
    if note.length_bytes is None or note.sha256 is None:
        return is_whole(png)
    return len(png) == note.length_bytes and hashlib.sha256(png).hexdigest() == note.sha256
