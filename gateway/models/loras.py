"""The LoRAs there are: files in the operator's folders, by exact names. Reads headers; knows no MLX and no protocol.

What a client names is compared with what was found, and never opened: a path leads nowhere but into the list (S-21).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import ParamSpec, TypeVar

from engine.catalog import CATALOG, EMBEDDED_PATH, HubFiles, ModelSpec
from engine.protocol import Lora
from engine.safetensors import UnsafeFile, inspect
from gateway.errors import clip
from gateway.jobs.resolve import KnownLora
from gateway.models.lora_hashes import Hashes, HashKeeper
from gateway.models.lora_layers import Fit, fit_of, names_of, share_layers
from gateway.models.lora_metadata import Notes, notes_of, picture_beside, told_by
from gateway.models.lora_repositories import SUFFIX, HubEntry, HubLora, HubLoras, is_name

log = logging.getLogger("gateway.loras")

FILES_MOST = 10_000
BESIDE = (".json", ".civitai.info")
HEADER_MOST_BYTES = 16 * 2**20
"""Trainers write megabytes about their pictures. Reading more holds up who asks for any LoRA."""
SHIPPED = EMBEDDED_PATH.parent / "loras"
_ROWS = {spec.name: spec for spec in CATALOG}

Version = tuple[Path, int, int]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoraFile:
    """One LoRA. `name` is its path in its folder, without suffix; `file` is None while it is on the hub only."""

    name: str
    file: Path | None
    size_bytes: int = 0
    changed_ns: int = 0
    fit: Fit = Fit(None, frozenset(), False)
    notes: Notes = Notes()
    trouble: str | None = None
    """Why it cannot be used: one sentence."""
    hub: HubLora | None = None

    @property
    def stem(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def alias(self) -> str:
        """The name its trainer gave it, else its own."""
        return self.notes.alias or self.stem

    @property
    def version(self) -> Version:
        assert self.file is not None
        return self.file, self.changed_ns, self.size_bytes

    def trouble_on(self, spec: ModelSpec) -> str | None:
        """Why it cannot be put on this model, as a sentence; None where it can, or only trying will tell."""
        if self.hub is not None and self.file is None and self.trouble is None:
            fits = share_layers(_ROWS[self.hub.like], spec) is not False
            return None if fits else _unfit(self.name, spec, f"is for {self.hub.like}")
        if self.trouble is not None or self.fit.of(spec) is not False:
            return self.trouble
        use, others = self.fit.use_on(spec), [self.fit.family] if self.fit.family else names_of(self.fit.models)
        if others:
            return _unfit(self.name, spec, f"is for {' and '.join(others[:4])}")
        return _unfit(self.name, spec, "changes none of its layers" if use is None else use.unfit or "is for another")


class LoraLibrary:
    """Finds LoRAs in `folders`, the first one's coming first; those shipped with the gateway come last.

    `may_come`: those on the hub are fetched when they are asked for.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        *,
        aliases: Mapping[str, str] | None = None,
        hub: Mapping[str, HubEntry] | None = None,
        hashes: Path | None = None,
        models_dir: Path | None = None,
        may_come: bool = False,
    ) -> None:
        self._may_come = may_come
        self._folders = tuple(dict.fromkeys(folder.absolute() for folder in (*folders, SHIPPED)))
        self._own_aliases = dict(aliases or {})
        self._hub = HubLoras(hub or {}, models_dir)
        self._hashes = HashKeeper(hashes)
        self._read: dict[Version, LoraFile] = {}
        self._notes: dict[Path, tuple[object, Notes]] = {}
        """What is written of each, with the versions of the files that it was read from."""
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loras")

    async def off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` in the library's own thread, one after the other: new headers hold up LoRAs only, nothing else."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))

    def all(self) -> tuple[LoraFile, ...]:
        """All there are, by name; those of the hub that are not here included. Blocks; new files are looked into."""
        on_hub = self._hub.all()
        with self._lock:
            found: dict[str, LoraFile] = {}
            read: dict[Version, LoraFile] = {}
            notes: dict[Path, tuple[object, Notes]] = {}
            for name, version in self._files(on_hub):
                read[version] = one = self._read.get(version) or _looked_into(name, version)
                notes[version[0]] = beside = self._notes_of(one)
                found.setdefault(name, replace(one, name=name, notes=beside[1]))
            self._read, self._notes = read, notes
        for name, there in on_hub.items():
            trouble = None if self._may_come else f"LoRA '{clip(name)}' is not on this machine yet."
            found[name] = replace(found.get(name) or LoraFile(name, None, trouble=trouble), hub=there)
        return tuple(sorted(found.values(), key=lambda lora: lora.name))

    @property
    def are_on_hub(self) -> bool:
        """Whether the settings name any there."""
        return bool(self._hub)

    def missing(self, asked: Iterable[str]) -> list[tuple[str, HubLora]]:
        """Of these those that are on the hub and not here. Blocks."""
        if not self._hub:
            return []
        named = self._named(self.all())
        found = {lora.name: lora for name in asked if (lora := named.get(_plain(name)))}
        return [(lora.name, lora.hub) for lora in found.values() if lora.hub and lora.file is None]

    def unlisted(self) -> list[HubFiles]:
        """The collections of the hub whose lists are not here. Blocks."""
        return self._hub.unlisted()

    def tensors(self, names: Collection[str], spec: ModelSpec) -> dict[str, tuple[int, int]]:
        """By name, how many tensors of each LoRA count on a model, of how many. Blocks."""
        known = self.known([Lora(name=name) for name in names], spec)
        return {
            name: (lora.tensors_used, lora.tensors) for name, lora in known.items() if lora.tensors_used is not None
        }

    def find(self, asked: str) -> LoraFile | None:
        """The LoRA of this name, alias, or path inside one of the folders. Blocks."""
        return self._named(self.all()).get(_plain(asked))

    def file(self, name: str) -> Path:
        """Where the LoRA of exactly this name lies. Raises: KeyError."""
        found = next((lora.file for lora in self.all() if lora.name == name and lora.trouble is None), None)
        if found is None:
            raise KeyError(name)
        return found

    def known(self, asked: Collection[Lora], spec: ModelSpec) -> dict[str, KnownLora]:
        """Of these those that there are, by what they are called, and why a model cannot wear them. Blocks."""
        named = self._named(self.all()) if asked else {}
        found = {lora.name: named.get(_plain(lora.name)) for lora in asked}
        return {name: _known(lora, spec) for name, lora in found.items() if lora}

    def hashes(self, lora: LoraFile, *, read: bool = True) -> Hashes | None:
        """Of its file, read where it was not before and `read` says so; None where it is not known. Blocks."""
        if lora.file is None:
            return None
        return self._hashes.of(lora.version, lora.notes.told, read=read)

    def _named(self, loras: Iterable[LoraFile]) -> dict[str, LoraFile]:
        """By everything a client may call them. A name comes before any alias; what two claim is nobody's."""
        loras = tuple(loras)
        named = {lora.name: lora for lora in loras}
        calls: list[dict[str, LoraFile]] = [
            {alias: named[name] for alias, name in self._own_aliases.items() if name in named},
            _single((lora.stem, lora) for lora in loras),
            _single((lora.alias, lora) for lora in loras if lora.file),
            {str(lora.file.with_suffix("")): lora for lora in loras if lora.file},
        ]
        for call in calls:
            for name, lora in call.items():
                named.setdefault(name, lora)
        return named

    def calls(self) -> dict[str, list[str]]:
        """By name, what else a LoRA may be called; paths are left out. Blocks."""
        found: dict[str, list[str]] = {}
        for call, lora in self._named(self.all()).items():
            if call != lora.name and not Path(call).is_absolute():
                found.setdefault(lora.name, []).append(call)
        return found

    def _notes_of(self, lora: LoraFile) -> tuple[object, Notes]:
        """What is written in a file and beside it, read again where one of them has changed."""
        assert lora.file is not None
        versions = (lora.version, *(_version(lora.file.with_suffix(suffix)) for suffix in BESIDE))
        kept = self._notes.get(lora.file)
        if kept is not None and kept[0] == versions:
            return kept
        return versions, notes_of(lora.file, lora.notes.told)

    def _files(self, on_hub: Mapping[str, HubLora]) -> Iterator[tuple[str, Version]]:
        """Those of the folders before those of the hub."""
        yield from self._in_folders()
        for name, file in self._hub.places(on_hub):
            if (version := _version(file)) is not None:
                yield name, version

    def _in_folders(self) -> Iterator[tuple[str, Version]]:
        count = 0
        for folder in self._folders:
            for file in sorted(folder.rglob(f"*{SUFFIX}")):
                name = file.relative_to(folder).as_posix().removesuffix(SUFFIX)
                if not is_name(name):
                    continue
                if (version := _version(file)) is None:
                    continue
                count += 1
                if count > FILES_MOST:
                    return
                yield name, version


def _version(file: Path) -> Version | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    if not S_ISREG(stat.st_mode):
        return None
    return file, stat.st_mtime_ns, stat.st_size


def _looked_into(name: str, version: Version) -> LoraFile:
    file, changed_ns, size_bytes = version
    lora = LoraFile(name, file, size_bytes, changed_ns)
    try:
        header = inspect(file, most_header_bytes=HEADER_MOST_BYTES)
    except (UnsafeFile, OSError) as error:
        log.warning("LoRA %s cannot be used: %s", clip(name), error.message if isinstance(error, UnsafeFile) else "")
        return replace(lora, trouble=f"LoRA '{clip(name)}' cannot be used: its file is damaged or not safe to load.")
    if dtype := next((tensor.dtype for tensor in header.tensors.values() if tensor.dtype.startswith("F8_")), None):
        # MLX would take them for whole numbers.
        return replace(lora, trouble=f"LoRA '{clip(name)}' cannot be used: its numbers are of the type {dtype}.")
    fit = fit_of({key: tensor.shape for key, tensor in header.tensors.items()})
    return replace(lora, fit=fit, notes=Notes(told_by(header.metadata)))


def _known(lora: LoraFile, spec: ModelSpec) -> KnownLora:
    use = lora.fit.use_on(spec)
    known = KnownLora(name=lora.name, trouble=lora.trouble_on(spec))
    if use is None:
        return known
    return known.model_copy(update={"tensors_used": use.used, "tensors": lora.fit.total, "rest": use.rest})


def _unfit(name: str, spec: ModelSpec, why: str) -> str:
    return f"LoRA '{clip(name)}' does not fit {spec.name}: it {why}."


def _single(calls: Iterable[tuple[str, LoraFile]]) -> dict[str, LoraFile]:
    pairs = list(calls)
    count = Counter(name for name, _ in pairs)
    return {name: lora for name, lora in pairs if count[name] == 1}


def _plain(asked: str) -> str:
    return asked.removesuffix(SUFFIX)


def preview_of(lora: LoraFile) -> Path | None:
    """The picture beside the file. Blocks."""
    return None if lora.file is None else picture_beside(lora.file)
