"""VAE files: in folders of their own, and beside checkpoints; by name, as A1111's option `sd_vae` names them.

Source: A1111 1.10.1 modules/sd_vae.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.checkpoints.kinds import NotACheckpoint, Part
from engine.checkpoints.vaes import recognise_vae
from gateway.errors import clip
from gateway.models.checkpoint_hashes import CheckpointHashes
from gateway.models.checkpoints import VAE_SUFFIX
from gateway.models.lora_repositories import is_name
from gateway.models.named_files import NamedFiles
from gateway.models.scan import Found, walk

log = logging.getLogger("gateway.models")

SUFFIXES = (".safetensors", ".ckpt", ".pt")
HASHES = "vae_hashes.json"


@dataclass(frozen=True, slots=True)
class VaeFile:
    """A VAE file. `name` is that of the file, with suffix, as A1111 lists it."""

    name: str
    found: Found
    part: Part | None
    trouble: str | None = None
    """Why it cannot be used, as a sentence; `part` is None then."""

    @property
    def path(self) -> Path:
        return self.found.path


class VaeLibrary(NamedFiles[VaeFile]):
    """VAE files in `folders`, and those named `*.vae.safetensors` in `checkpoint_folders`; of equal names the first.

    `notes`: folder in which hashes are kept over restarts. `hashes_all`: whether they are computed, in the background.
    """

    def __init__(
        self,
        folders: Iterable[Path] = (),
        checkpoint_folders: Iterable[Path] = (),
        *,
        notes: Path | None = None,
        hashes_all: bool = False,
    ) -> None:
        super().__init__(folders)
        self._checkpoint_folders = tuple(dict.fromkeys(folder.absolute() for folder in checkpoint_folders))
        self.hashes = CheckpointHashes(None if notes is None else notes / HASHES)
        self._hashes_all = hashes_all

    def refresh(self) -> None:
        """Find what is in the folders now; headers of new files are read. Blocks."""
        with self._lock:
            read = {found.key: self._read.get(found.key) or _recognised(found) for found in self._found()}
            by_name: dict[str, VaeFile] = {}
            for one in read.values():
                by_name.setdefault(one.name, one)
            self._read, self._by_name = read, by_name
            if self._hashes_all:
                self.hashes.want(one.found for one in by_name.values() if one.trouble is None)

    def find(self, name: str) -> VaeFile | None:
        """The file of exactly this name, with suffix or without. Its `trouble` says whether it can be used."""
        if (exact := self._by_name.get(name)) is not None:
            return exact
        return next((one for one in self._by_name.values() if one.found.stem == name), None)

    def beside(self, checkpoint: Path) -> VaeFile | None:
        """The file that A1111 takes by itself for a checkpoint: the first whose name begins with the checkpoint's."""
        return next((one for one in self.all() if one.name.startswith(checkpoint.stem)), None)

    def _found(self) -> Iterator[Found]:
        for folder in self._folders:
            yield from walk(folder, SUFFIXES)
        for folder in self._checkpoint_folders:
            yield from walk(folder, (VAE_SUFFIX,))


def _recognised(found: Found) -> VaeFile:
    name = found.name.rpartition("/")[2]
    if not is_name(name):
        return VaeFile(name, found, None, "Its name is too long, or has characters that no name may have.")
    if found.leads_out:
        return VaeFile(name, found, None, "It is a link out of its folder; name the folder that it leads to.")
    if not name.lower().endswith(SUFFIXES[0]):
        return VaeFile(name, found, None, "It is a pickle, which can run code; convert it to safetensors.")
    try:
        return VaeFile(name, found, recognise_vae(found.path))
    except NotACheckpoint as error:
        return VaeFile(name, found, None, error.reason)
    except OSError:
        log.warning("the VAE %s could not be read", clip(name), exc_info=True)
        return VaeFile(name, found, None, "It cannot be read.")
