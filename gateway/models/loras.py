"""LoRA library: files in the operator's folders, by exact names. Reads headers; knows no MLX and no protocol.

A client's name is only compared with the list of files, never opened: a path leads nowhere else (S-21).
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
from gateway.models.lora_metadata import Notes, image_beside, notes_of, public_metadata
from gateway.models.lora_repositories import SUFFIX, HubEntry, HubLora, HubLoras, is_name

log = logging.getLogger("gateway.loras")

FILES_MOST = 10_000
BESIDE = (".json", ".civitai.info")
HEADER_MOST_BYTES = 16 * 2**20
"""Longest header: trainers write megabytes about their images. Reading more would delay every LoRA request."""
SHIPPED = EMBEDDED_PATH.parent / "loras"
_ROWS = {spec.name: spec for spec in CATALOG}

Version = tuple[Path, int, int]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA. `name` is its path in its folder, without suffix; `file` is None if it is only on the hub."""

    name: str
    file: Path | None
    size_bytes: int = 0
    changed_ns: int = 0
    fit: Fit = Fit(None, frozenset(), False)
    notes: Notes = Notes()
    trouble: str | None = None
    """Why it cannot be used, as a sentence."""
    hub: HubLora | None = None

    @property
    def stem(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def alias(self) -> str:
        """The name that its trainer gave it, otherwise its own."""
        return self.notes.alias or self.stem

    @property
    def version(self) -> Version:
        assert self.file is not None
        return self.file, self.changed_ns, self.size_bytes

    def trouble_on(self, spec: ModelSpec) -> str | None:
        """Why it cannot be applied to this model, as a sentence; None if it can, or if only a try can tell."""
        if self.hub is not None and self.file is None and self.trouble is None:
            fits = share_layers(_ROWS[self.hub.like], spec) is not False
            return None if fits else _unfit(self.name, spec, f"is for {self.hub.like}")
        if self.trouble is not None or self.fit.of(spec) is not False:
            return self.trouble
        use, family = self.fit.use_on(spec), self.fit.family or self.fit.stable_diffusion
        others = names_of(self.fit.models) if family is None else [family]
        if others and not (family is not None and use is not None and self.fit.may_be_for(spec)):
            return _unfit(self.name, spec, f"is for {' and '.join(others[:4])}")
        return _unfit(self.name, spec, "changes none of its layers" if use is None else use.unfit or "is for another")


class LoraLibrary:
    """LoRAs in `folders`: of equal names that of the first folder counts, then those shipped with the gateway.

    `may_come`: LoRAs on the hub are downloaded when a job needs them.
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
        """Metadata by file, with the versions of the files that it was read from."""
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loras")

    async def off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` in the library's own thread, one call after the other: new headers delay LoRA requests only."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))

    def all(self) -> tuple[LoraFile, ...]:
        """All LoRAs by name, including those that are only on the hub. Blocks; headers of new files are read."""
        on_hub = self._hub.all()
        with self._lock:
            loras: dict[str, LoraFile] = {}
            read: dict[Version, LoraFile] = {}
            notes: dict[Path, tuple[object, Notes]] = {}
            for name, version in self._files(on_hub):
                read[version] = one = self._read.get(version) or _inspected(name, version)
                notes[version[0]] = beside = self._notes_of(one)
                loras.setdefault(name, replace(one, name=name, notes=beside[1]))
            self._read, self._notes = read, notes
        for name, there in on_hub.items():
            trouble = None if self._may_come else f"LoRA '{clip(name)}' is not on this machine yet."
            loras[name] = replace(loras.get(name) or LoraFile(name, None, trouble=trouble), hub=there)
        return tuple(sorted(loras.values(), key=lambda lora: lora.name))

    @property
    def are_on_hub(self) -> bool:
        """Whether the settings name LoRAs on the hub."""
        return bool(self._hub)

    def missing(self, names: Iterable[str]) -> list[tuple[str, HubLora]]:
        """Those of these LoRAs that are only on the hub. Blocks."""
        if not self._hub:
            return []
        by_name = self._by_any_name(self.all())
        matches = {lora.name: lora for name in names if (lora := by_name.get(_plain(name)))}
        return [(lora.name, lora.hub) for lora in matches.values() if lora.hub and lora.file is None]

    def unlisted(self) -> list[HubFiles]:
        """Collections on the hub whose lists are not on this machine. Blocks."""
        return self._hub.unlisted()

    def tensors(self, names: Collection[str], spec: ModelSpec) -> dict[str, tuple[int, int]]:
        """By name: how many tensors of each LoRA a model uses, and how many it has. Blocks."""
        loras = self.known([Lora(name=name) for name in names], spec)
        return {
            name: (lora.tensors_used, lora.tensors) for name, lora in loras.items() if lora.tensors_used is not None
        }

    def find(self, name: str) -> LoraFile | None:
        """The LoRA with this name, alias, or path inside one of the folders. Blocks."""
        return self._by_any_name(self.all()).get(_plain(name))

    def file(self, name: str) -> Path:
        """The file of the LoRA with exactly this name. Raises: KeyError."""
        file = next((lora.file for lora in self.all() if lora.name == name and lora.trouble is None), None)
        if file is None:
            raise KeyError(name)
        return file

    def known(self, requested: Collection[Lora], spec: ModelSpec) -> dict[str, KnownLora]:
        """Those of these LoRAs that exist, by the name in the request, and why they do not fit a model. Blocks."""
        by_name = self._by_any_name(self.all()) if requested else {}
        matches = {lora.name: by_name.get(_plain(lora.name)) for lora in requested}
        return {name: _known_lora(lora, spec) for name, lora in matches.items() if lora}

    def hashes(self, lora: LoraFile, *, read: bool = True) -> Hashes | None:
        """Hashes of its file, which is read if it is new and `read` is true; otherwise None. Blocks."""
        if lora.file is None:
            return None
        return self._hashes.of(lora.version, lora.notes.metadata, read=read)

    def _by_any_name(self, loras: Iterable[LoraFile]) -> dict[str, LoraFile]:
        """LoRAs by every name a client may use. Names precede aliases; an alias of two LoRAs belongs to neither."""
        loras = tuple(loras)
        by_name = {lora.name: lora for lora in loras}
        calls: list[dict[str, LoraFile]] = [
            {alias: by_name[name] for alias, name in self._own_aliases.items() if name in by_name},
            _single((lora.stem, lora) for lora in loras),
            _single((lora.alias, lora) for lora in loras if lora.file),
            {str(lora.file.with_suffix("")): lora for lora in loras if lora.file},
        ]
        for call in calls:
            for name, lora in call.items():
                by_name.setdefault(name, lora)
        return by_name

    def calls(self) -> dict[str, list[str]]:
        """By name: other names of a LoRA, without paths. Blocks."""
        names: dict[str, list[str]] = {}
        for call, lora in self._by_any_name(self.all()).items():
            if call != lora.name and not Path(call).is_absolute():
                names.setdefault(lora.name, []).append(call)
        return names

    def _notes_of(self, lora: LoraFile) -> tuple[object, Notes]:
        """Metadata of a file and the files beside it, read again if one of them has changed."""
        assert lora.file is not None
        versions = (lora.version, *(_version(lora.file.with_suffix(suffix)) for suffix in BESIDE))
        last = self._notes.get(lora.file)
        if last is not None and last[0] == versions:
            return last
        return versions, notes_of(lora.file, lora.notes.metadata)

    def _files(self, on_hub: Mapping[str, HubLora]) -> Iterator[tuple[str, Version]]:
        """Files in the folders, then those of the hub."""
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


def _inspected(name: str, version: Version) -> LoraFile:
    file, changed_ns, size_bytes = version
    lora = LoraFile(name, file, size_bytes, changed_ns)
    try:
        header = inspect(file, most_header_bytes=HEADER_MOST_BYTES)
    except (UnsafeFile, OSError) as error:
        log.warning("LoRA %s cannot be used: %s", clip(name), error.message if isinstance(error, UnsafeFile) else "")
        return replace(lora, trouble=f"LoRA '{clip(name)}' cannot be used: its file is damaged or not safe to load.")
    if dtype := next((tensor.dtype for tensor in header.tensors.values() if tensor.dtype.startswith("F8_")), None):
        # MLX would read them as integers.
        return replace(lora, trouble=f"LoRA '{clip(name)}' cannot be used: its numbers are of the type {dtype}.")
    fit = fit_of({key: tensor.shape for key, tensor in header.tensors.items()})
    return replace(lora, fit=fit, notes=Notes(public_metadata(header.metadata)))


def _known_lora(lora: LoraFile, spec: ModelSpec) -> KnownLora:
    use = lora.fit.use_on(spec)
    known_lora = KnownLora(name=lora.name, trouble=lora.trouble_on(spec))
    if use is None:
        return known_lora
    return known_lora.model_copy(update={"tensors_used": use.used, "tensors": lora.fit.total, "rest": use.rest})


def _unfit(name: str, spec: ModelSpec, why: str) -> str:
    return f"LoRA '{clip(name)}' does not fit {spec.name}: it {why}."


def _single(calls: Iterable[tuple[str, LoraFile]]) -> dict[str, LoraFile]:
    pairs = list(calls)
    count = Counter(name for name, _ in pairs)
    return {name: lora for name, lora in pairs if count[name] == 1}


def _plain(name: str) -> str:
    return name.removesuffix(SUFFIX)


def preview_of(lora: LoraFile) -> Path | None:
    """The image beside the file. Blocks."""
    return None if lora.file is None else image_beside(lora.file)
