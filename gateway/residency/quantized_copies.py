"""Quantised copies of models on disk: made once, used from then on, never seen half-written. Reads and writes folders.

A copy is in `quantized/` below the models folder, with a stamp of what it was made from. It is written under another
name, and renamed when all of it is on disk.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from engine.catalog import ModelSpec
from gateway.disk import sync_path
from gateway.models.weights import stored_bits

log = logging.getLogger("gateway.residency")

FOLDER = "quantized"
STAMP = "made_from.json"
INCOMPLETE = ".incomplete"
ROOM_RATIO = 1.1
SMALL_BYTES = 64 * 2**20
"""Files up to this size that mflux does not save, such as configurations, are copied."""


class Copies:
    """The copies below one models folder. All methods block."""

    def __init__(self, models_dir: Path, *, keep: bool) -> None:
        self._folder = models_dir / FOLDER
        self._keep = keep

    def sweep(self) -> None:
        """Remove the remains of interrupted saves; an error of the disk is ignored."""
        with suppress(OSError):
            for leftover in self._folder.glob(f"*{INCOMPLETE}"):
                shutil.rmtree(leftover, ignore_errors=True)

    def find(self, spec: ModelSpec, source: Path, bits: int) -> Path | None:
        """The copy of `source` with so many bits, if it exists and its source has not changed since."""
        folder = self._place(spec, source, bits)
        try:
            stamp = json.loads((folder / STAMP).read_text())
            return folder if self._keep and stamp == fingerprint(source) else None
        except (OSError, ValueError):
            return None

    def wants(self, spec: ModelSpec, source: Path, bits: int, size_bytes: int) -> bool:
        """Whether a copy should be made: there is none, the source is not quantised itself, and the disk has room."""
        if not self._keep or not spec.copies or spec.stored_bits is not None or stored_bits(source) is not None:
            return False
        if self.find(spec, source, bits) is not None:
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return False
        if free < ROOM_RATIO * size_bytes:
            log.warning("no room for a quantised copy of %s: it takes %d MB", spec.name, size_bytes // 1_000_000)
            return False
        return True

    def begin(self, spec: ModelSpec, source: Path, bits: int) -> Path:
        """An empty folder for the copy. Raises: OSError."""
        place = self._place(spec, source, bits)
        folder = place.with_name(place.name + INCOMPLETE)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / STAMP).write_text(json.dumps(fingerprint(source)))
        return folder

    def finish(self, unfinished: Path, source: Path) -> Path:
        """Rename a saved copy to its final name, unless its source changed meanwhile. Raises: OSError."""
        if json.loads((unfinished / STAMP).read_text()) != fingerprint(source):
            shutil.rmtree(unfinished, ignore_errors=True)
            raise OSError("the model changed while its copy was written")
        _bring_along(source, unfinished)
        for file in sorted(unfinished.rglob("*"), reverse=True):
            sync_path(file)
        sync_path(unfinished)
        place = unfinished.with_name(unfinished.name.removesuffix(INCOMPLETE))
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
        sync_path(place.parent)
        return place

    def discard(self, folder: Path) -> None:
        """Remove a copy, complete or not; its stamp is removed first, so that no half of it is used.

        An error of the disk is ignored, since the job that met the copy is not at fault.
        """
        if folder.parent != self._folder:
            return
        try:
            (folder / STAMP).unlink(missing_ok=True)
        except OSError:
            log.exception("a quantised copy could not be removed")
            return
        shutil.rmtree(folder, ignore_errors=True)

    def forget(self, spec: ModelSpec, source: Path) -> None:
        """Remove the copies of a removed model; if its folder is gone, those of everything in it."""
        prefix = _plain(spec.geometry) if source.exists() else "*"
        for folder in self._folder.glob(f"{prefix}-*-bit-{_name_of(source)}"):
            self.discard(folder)

    def _place(self, spec: ModelSpec, source: Path, bits: int) -> Path:
        return self._folder / f"{_plain(spec.geometry)}-{bits}-bit-{_name_of(source)}"


def _plain(name: str) -> str:
    return re.sub("[^A-Za-z0-9._-]", "-", name)


def _name_of(source: Path) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:8]


def fingerprint(source: Path) -> dict[str, object]:
    """What a copy depends on: the files of its source by size and time, and the version of mflux that writes it. A
    checkpoint in one file is that file.
    """
    root = source.parent if source.is_file() else source
    candidates = [source] if source.is_file() else source.rglob("*")
    weights = (file for file in candidates if file.suffix in (".safetensors", ".json"))
    files = sorted(file for file in weights if not file.name.startswith("."))
    seen = [[file.relative_to(root).as_posix(), (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
    return {"mflux": _mflux_version(), "files": seen}


@lru_cache(maxsize=1)
def _mflux_version() -> str:
    try:
        return importlib.metadata.version("mflux")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _bring_along(source: Path, copy: Path) -> None:
    """Copy configurations, tokenizers and the like that were not saved; indexes of weights files do not apply."""
    for file in source.glob("*/*"):
        there = copy / file.relative_to(source)
        is_weights = file.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt") or file.name.endswith(
            ".index.json"
        )
        if file.is_file() and not is_weights and not there.exists() and file.stat().st_size <= SMALL_BYTES:
            there.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, there)
