"""LoRAs on the hub that the settings name: files, and whole repositories by their stored lists. Fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from engine.catalog import HubFiles
from gateway.models.folders import folder_of, hub_snapshots, list_of, read_record

SUFFIX = ".safetensors"
LORA = "lora:"
"""Prefix of the names of LoRA downloads: no model has such a name."""
NAME_CHARS = 200
MEMBERS_MOST = 10_000
_NO_NAME = frozenset('<>:"|?*\\')


@dataclass(frozen=True, slots=True)
class HubLora:
    """A LoRA in a hub repository. `like` is the catalogue model it is for."""

    repo: str
    file: str
    like: str
    revision: str | None = None

    @property
    def files(self) -> HubFiles:
        return HubFiles(repo=self.repo, patterns=(escape(self.file),), revision=self.revision)


@dataclass(frozen=True, slots=True)
class HubCollection:
    """A hub repository of LoRAs that are all for `like`."""

    repo: str
    like: str
    revision: str | None = None

    @property
    def files(self) -> HubFiles:
        return HubFiles(repo=self.repo, patterns=(f"*{SUFFIX}",), revision=self.revision)

    def members(self, models_dir: Path) -> Iterator[HubLora]:
        """Its LoRAs at the commit of its list; none until that is known. Blocks."""
        if (record := read_record(list_of(models_dir, self.files))) is not None:
            for entry in record.files[:MEMBERS_MOST]:
                yield HubLora(self.repo, entry.path, self.like, record.revision)


HubEntry = HubLora | HubCollection


class HubLoras:
    """The LoRAs that the settings name, by the names they are served under."""

    def __init__(self, entries: Mapping[str, HubEntry], models_dir: Path | None) -> None:
        self._entries = dict(entries)
        self._models_dir = models_dir

    def __bool__(self) -> bool:
        return bool(self._entries)

    def all(self) -> dict[str, HubLora]:
        """By name: that of the entry, or `<entry>/<file>` for a LoRA of a collection. Blocks."""
        loras: dict[str, HubLora] = {}
        for name, entry in self._entries.items():
            if isinstance(entry, HubLora):
                loras[name] = entry
            elif self._models_dir is not None:
                members = entry.members(self._models_dir)
                loras |= {f"{name}/{member.file.removesuffix(SUFFIX)}": member for member in members}
        return {name: lora for name, lora in loras.items() if is_name(name)}

    def places(self, loras: Mapping[str, HubLora]) -> Iterator[tuple[str, Path]]:
        """Files of the LoRAs that are on this machine, downloaded by us or by another tool. Blocks."""
        if self._models_dir is None:
            return
        folders: dict[str, list[Path]] = {}
        for name, lora in loras.items():
            if lora.repo not in folders:
                folders[lora.repo] = [folder_of(self._models_dir, lora.repo), *hub_snapshots(lora.repo)]
            # A file gets its name when it is complete, here as in the hub's own cache.
            files = (folder / lora.file for folder in folders[lora.repo])
            if (file := next((file for file in files if file.is_file()), None)) is not None:
                yield name, file

    def unlisted(self) -> list[HubFiles]:
        """Collections whose lists are not on this machine. Blocks."""
        if (models_dir := self._models_dir) is None:
            return []
        files = [entry.files for entry in self._entries.values() if isinstance(entry, HubCollection)]
        return [one for one in dict.fromkeys(files) if read_record(list_of(models_dir, one)) is None]


def is_name(name: str) -> bool:
    """Whether a LoRA may have this name."""
    return len(name) <= NAME_CHARS and name.isprintable() and not _NO_NAME & set(name)
