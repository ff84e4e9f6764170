"""Checkpoints of Stable Diffusion in the operator's folders: files and diffusers folders, by name, title and hash.

A client's name is only compared with what was found, never opened (S-21). `refresh` reads the disk; everything else
answers from what it found last.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.checkpoints.folders import recognise_folder
from engine.checkpoints.kinds import Checkpoint, NotACheckpoint, Part, recognise_file
from gateway.errors import clip
from gateway.models.checkpoint_hashes import SHORT_CHARS, CheckpointHashes, old_hash
from gateway.models.file_notes import FileNotes
from gateway.models.lora_repositories import is_name
from gateway.models.scan import Found, walk

log = logging.getLogger("gateway.models")

SUFFIX = ".safetensors"
PICKLE = ".ckpt"
VAE_SUFFIX = ".vae.safetensors"
"""Of VAE files beside checkpoints, which are no checkpoints."""
KINDS, HASHES = "checkpoint_kinds.json", "checkpoint_hashes.json"
_VERSION = 1
"""Of what is noted of a file; another one is read again."""
_HASH = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A checkpoint that was found. `name` is that of its model: its stem where no other model has that name, else its
    path below its folder, without suffix or with it.
    """

    name: str
    found: Found
    kind: Checkpoint | None
    trouble: str | None = None
    """Why it cannot be used, as a sentence; `kind` is None then."""
    old_hash: str | None = None
    """A1111's hash of 8 digits, of a file."""

    @property
    def path(self) -> Path:
        return self.found.path

    @property
    def file_name(self) -> str:
        """Its path below its folder, with suffix: the beginning of A1111's title."""
        return self.found.name

    @property
    def model_name(self) -> str:
        """A1111's `model_name`: the path below the folder without suffix, with `_` for `/`."""
        return _plain(self.found).replace("/", "_")


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last walk found."""

    by_name: Mapping[str, CheckpointFile]
    by_call: Mapping[str, CheckpointFile] = field(default_factory=dict)
    """By file name, A1111's `model_name`, last part of the file name and old hash, where one file alone has it."""
    troubles: tuple[CheckpointFile, ...] = ()


class CheckpointLibrary:
    """Checkpoints in `folders`; of two files of the same name below two folders that of the first one counts.

    `notes`: folder in which what was learned of files is kept over restarts. `hashes_all`: whether the hash of every
    file is computed, in the background.
    """

    def __init__(self, folders: Iterable[Path] = (), *, notes: Path | None = None, hashes_all: bool = False) -> None:
        self._folders = tuple(dict.fromkeys(folder.absolute() for folder in folders))
        self._kinds = FileNotes(None if notes is None else notes / KINDS)
        self._hashes = CheckpointHashes(None if notes is None else notes / HASHES)
        self._hashes_all = hashes_all
        self._lock = threading.Lock()
        self._last: tuple[Found, ...] | None = None
        """What the last walk found."""
        self._known = _Known({})

    @property
    def folders(self) -> tuple[Path, ...]:
        return self._folders

    @property
    def hashes(self) -> CheckpointHashes:
        return self._hashes

    def refresh(self, taken: Collection[str] = ()) -> bool:
        """Find what is in the folders now; headers of new files are read. `taken` are names of other models.

        Returns whether anything has changed. Blocks.
        """
        if not self._folders:
            return False
        with self._lock:
            found = tuple(self._found())
            if found == self._last:
                return False
            read = [self._read(one) for one in found]
            self._kinds.store()
            self._last, self._known = found, _named(read, frozenset(taken))
            if self._hashes_all:
                self._hashes.want(one.found for one in self._known.by_name.values())
            return True

    def all(self) -> tuple[CheckpointFile, ...]:
        """Those that can be used, by name."""
        return tuple(one for _, one in sorted(self._known.by_name.items()))

    def troubles(self) -> tuple[CheckpointFile, ...]:
        """Files in the folders that cannot be used, each with its reason."""
        return self._known.troubles

    def get(self, name: str) -> CheckpointFile | None:
        """The checkpoint of exactly this name."""
        return self._known.by_name.get(name)

    def find(self, call: str) -> CheckpointFile | None:
        """The checkpoint that a client means: by name; by A1111's title, with or without its hash; by file name; by
        A1111's `model_name`; by hash (8 digits of the old one, 10 or all of the new one). Of several none.
        """
        known = self._known
        if (exact := known.by_name.get(call) or known.by_call.get(call)) is not None:
            return exact
        file_name, digits = _title(call)
        if digits is not None:
            return self._of_hash(digits) or self.find(file_name)
        return self._of_hash(call) if _HASH.fullmatch(call) else None

    def trouble(self, call: str) -> str | None:
        """Why the file that a client means cannot be used, as a sentence; None where there is none, or no trouble."""
        plain, _ = _title(call)
        for one in self._known.troubles:
            if plain in (one.name, one.file_name, one.model_name, one.file_name.rpartition("/")[2]):
                return one.trouble
        return None

    def sha256(self, one: CheckpointFile) -> str | None:
        """Its SHA-256; None until it is known, and for a folder. Does not block."""
        return self._hashes.of(one.found)

    def title(self, one: CheckpointFile) -> str:
        """A1111's title: file name, and the first digits of its hash where that is known."""
        sha256 = self.sha256(one)
        return one.file_name if sha256 is None else f"{one.file_name} [{sha256[:SHORT_CHARS]}]"

    def _of_hash(self, digits: str) -> CheckpointFile | None:
        """Two files with one hash are copies of each other: the first one."""
        if len(digits) < SHORT_CHARS:
            return self._known.by_call.get(digits)
        files = self._known.by_name.values()
        return next((one for one in files if (self.sha256(one) or "").startswith(digits)), None)

    def _found(self) -> Iterator[Found]:
        for folder in self._folders:
            for found in walk(folder, (SUFFIX, PICKLE), folders=True):
                if not found.name.lower().endswith(VAE_SUFFIX):
                    yield found

    def _read(self, found: Found) -> CheckpointFile:
        """What a file is, from the notes where it has not changed."""
        name = _plain(found)
        if not is_name(name):
            return CheckpointFile(name, found, None, "Its name is too long, or has characters that no name may have.")
        if found.leads_out:
            return CheckpointFile(
                name, found, None, "It is a link out of its folder; name the folder that it leads to."
            )
        if found.name.lower().endswith(PICKLE):
            return CheckpointFile(name, found, None, "It is a pickle, which can run code; convert it to safetensors.")
        noted = self._kinds.get(found.key)
        one = None if noted is None else _restored(name, found, noted)
        if one is None:
            one = _recognised(name, found)
            note = {
                "version": _VERSION,
                "kind": None if one.kind is None else asdict(one.kind),
                "trouble": one.trouble,
                "old_hash": one.old_hash,
            }
            self._kinds.put(found.key, note)
        return one


def _recognised(name: str, found: Found) -> CheckpointFile:
    try:
        if found.is_folder:
            return CheckpointFile(name, found, recognise_folder(found.path))
        return CheckpointFile(name, found, recognise_file(found.path), old_hash=old_hash(found.path))
    except NotACheckpoint as error:
        return CheckpointFile(name, found, None, error.reason)
    except OSError:
        log.warning("the checkpoint %s could not be read", clip(name), exc_info=True)
        return CheckpointFile(name, found, None, "It cannot be read.")


def _restored(name: str, found: Found, note: Any) -> CheckpointFile | None:
    """From a note; None where it is of another version, or damaged."""
    try:
        if note["version"] != _VERSION:
            return None
        kind, trouble, old = note["kind"], note["trouble"], note["old_hash"]
        if kind is None:
            return CheckpointFile(name, found, None, str(trouble))
        parts = {part: None if kind[part] is None else Part(**kind[part]) for part in ("unet", "text_encoders", "vae")}
        kind = Checkpoint(**{**kind, **parts, "text_widths": tuple(kind["text_widths"])})
        return CheckpointFile(name, found, kind, old_hash=old)
    except (KeyError, TypeError, ValueError):
        return None


def _named(read: list[CheckpointFile], taken: frozenset[str]) -> _Known:
    """Each file under its name. A name goes to the first file that may have it."""
    usable = [one for one in read if one.kind is not None]
    count = Counter(one.found.stem for one in usable)
    by_name: dict[str, CheckpointFile] = {}
    troubles = [one for one in read if one.kind is None]
    for one in usable:
        stem = [one.found.stem] if count[one.found.stem] == 1 else []
        free = [name for name in (*stem, one.name, one.file_name) if name not in taken and name not in by_name]
        if free:
            by_name[free[0]] = CheckpointFile(free[0], one.found, one.kind, old_hash=one.old_hash)
        else:
            reason = "Another folder has a file of this name."
            troubles.append(CheckpointFile(one.name, one.found, None, reason))
    return _Known(by_name, _calls(by_name.values()), tuple(troubles))


def _calls(files: Collection[CheckpointFile]) -> dict[str, CheckpointFile]:
    """What else clients call each file, the surest first; a call of several files means none."""
    kinds: tuple[Callable[[CheckpointFile], str | None], ...] = (
        lambda one: one.file_name,
        lambda one: one.model_name,
        lambda one: one.file_name.rpartition("/")[2],
        lambda one: one.old_hash,
    )
    by_call: dict[str, CheckpointFile] = {}
    for kind in kinds:
        count = Counter(kind(one) for one in files)
        for one in files:
            if (call := kind(one)) is not None and count[call] == 1:
                by_call.setdefault(call, one)
    return by_call


def _plain(found: Found) -> str:
    """Path below the folder, without a file's suffix."""
    return found.name if found.is_folder else found.name.rpartition(".")[0]


def _title(call: str) -> tuple[str, str | None]:
    """File name and hash of a title of A1111; of any other text itself and None."""
    name, bracket, rest = call.rpartition(" [")
    if name and bracket and rest.endswith("]") and _HASH.fullmatch(rest[:-1]):
        return name, rest[:-1]
    return call, None
