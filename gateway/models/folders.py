"""Where models lie in the models folder, whole or in part. Reads and removes folders; knows no network.

A repository `org/name` becomes the folder `org--name`, renamed there when its last file is checked: until then it grows
below `.incomplete`, where nobody looks for models. A record inside says what is whole, and that it is ours to remove.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from engine.catalog import HubFiles
from engine.protocol import Frozen
from gateway.disk import read_file
from gateway.models.listing import listing_of, transformer_weights
from gateway.models.needed import missing_in, missing_weights, some

INCOMPLETE = ".incomplete"
RECORD = ".mflux-gateway.json"
RECORD_MOST_BYTES = 16 * 2**20
LISTS = ".lists"


class Entry(Frozen):
    """One file of a repository; `digest` is the SHA-256 of a large file, or git's SHA-1 of a small one."""

    path: str
    size: int
    digest: str


class Record(Frozen):
    """What a folder of ours holds: these files of one commit, chosen by these patterns."""

    repo: str
    revision: str
    patterns: tuple[str, ...]
    files: tuple[Entry, ...]


def folder_of(models_dir: Path, repo: str) -> Path:
    """Where a whole repository lies. Raises: ValueError for what is no `org/name`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", repo):
        raise ValueError(repo)
    return models_dir / repo.replace("/", "--")


def staging_of(models_dir: Path, repo: str) -> Path:
    """Where it grows."""
    return models_dir / INCOMPLETE / folder_of(models_dir, repo).name


def list_of(models_dir: Path, source: HubFiles) -> Path:
    """Where the list of what a repository has is kept: a record, one for each revision that is asked for."""
    name = folder_of(models_dir, source.repo).name
    return models_dir / LISTS / f"{name}@{source.revision or 'main'}.json"


def record_of(folder: Path) -> Record | None:
    """What we recorded of a folder; None where it is not ours."""
    return read_record(folder / RECORD)


def read_record(file: Path) -> Record | None:
    """None where it is not there, or not ours."""
    try:
        status = file.stat()
    except OSError:
        return None
    return _read_record(file, status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=64)
def _read_record(file: Path, _changed_ns: int, _size: int, _inode: int) -> Record | None:
    try:
        return Record.model_validate_json(read_file(file, RECORD_MOST_BYTES))
    except (OSError, ValidationError):
        return None


def is_whole(folder: Path, patterns: Collection[str]) -> bool:
    """Whether all that the patterns ask for is there: by our record, else by the names of the files."""
    record = record_of(folder)
    if record is not None:
        return set(patterns) <= set(record.patterns) and lost_of(folder, record.files) is None
    return bool(_weights_below(folder)) and missing_in(folder, patterns) is None


def is_usable(folder: Path, patterns: Collection[str]) -> bool:
    """Whether a folder that the operator may have put there can be drawn with.

    What we downloaded has to be whole. Of the operator's own only the weights are asked for: he knows what else it
    needs, and an index may be left over from other files.
    """
    if record_of(folder) is not None:
        return is_whole(folder, patterns)
    weights = _weights_below(folder)
    asked = [name for name in weights if _asks_for(patterns, name)]
    return bool(weights) and missing_weights(asked, patterns) is None


def lost_of(folder: Path, files: Iterable[Entry]) -> Entry | None:
    """The first of the files that is not in the folder at its size."""
    return next((entry for entry in files if size_of(folder / entry.path) != entry.size), None)


def size_of(file: Path) -> int | None:
    """Bytes; None where there is no file, or a link to none."""
    try:
        return file.stat().st_size if file.is_file() else None
    except OSError:
        return None


def holds_weights(folder: Path) -> bool:
    """Whether a folder of the operator's, in whatever layout, looks like a model: weights, and every shard of them."""
    weights = transformer_weights(folder)
    return bool(weights) and missing_weights(weights, ()) is None


def _weights_below(folder: Path) -> list[str]:
    listing = listing_of(folder)
    return [] if listing is None else [name for name in listing.files if name.endswith(".safetensors")]


def hub_snapshot(repo: str, patterns: Collection[str]) -> Path | None:
    """The newest whole snapshot in the Hugging Face cache."""
    return next((folder.resolve() for folder in hub_snapshots(repo) if is_whole(folder, patterns)), None)


def hub_snapshots(repo: str) -> list[Path]:
    """The snapshots of a repository in the Hugging Face cache, which mflux and other tools fill; the newest first."""
    snapshots = _cache_of(repo) / "snapshots"
    return sorted(snapshots.glob("*"), key=lambda folder: folder.stat().st_mtime, reverse=True)


def cached(repo: str, entry: Entry) -> Path | None:
    """The file in the Hugging Face cache, which names files by their digests; None where it is not there whole."""
    blob = _cache_of(repo) / "blobs" / entry.digest
    return blob if re.fullmatch("[0-9a-f]{40,64}", entry.digest) and size_of(blob) == entry.size else None


def _cache_of(repo: str) -> Path:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return cache / f"models--{repo.replace('/', '--')}"


def is_offline() -> bool:
    """Whether the hub's client would refuse to go there. Source: huggingface_hub 1.x constants.HF_HUB_OFFLINE."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def remove(models_dir: Path, repo: str, patterns: Collection[str] = (), keep: Collection[str] = ()) -> bool:
    """Remove what we downloaded of a repository for these patterns, in part or whole; whether there was any. Blocks.

    Files that one of `keep` asks for stay.
    """
    whole, staging = folder_of(models_dir, repo), staging_of(models_dir, repo)
    gone = _remove_whole(whole, staging, patterns, keep)
    if staging.is_dir():
        shutil.rmtree(staging, ignore_errors=True)
        gone = True
    return gone


def _remove_whole(whole: Path, staging: Path, patterns: Collection[str], keep: Collection[str]) -> bool:
    record = record_of(whole)
    if record is None:
        return False
    going = [entry for entry in record.files if _asks_for(patterns, entry.path) and not some([entry.path], *keep)]
    staying = tuple(entry for entry in record.files if entry not in going)
    if not any(entry.path.endswith(".safetensors") for entry in staying):
        # Renamed first: half a model is never listed.
        away = staging.with_name(f"removed-{secrets.token_hex(4)}")
        away.parent.mkdir(parents=True, exist_ok=True)
        whole.rename(away)
        shutil.rmtree(away, ignore_errors=True)
        return True
    left = tuple(pattern for pattern in record.patterns if pattern in keep or pattern not in patterns)
    new = whole / f"{RECORD}.new"
    new.write_text(record.model_copy(update={"patterns": left, "files": staying}).model_dump_json())
    new.replace(whole / RECORD)
    for entry in going:
        (whole / entry.path).unlink(missing_ok=True)
    return bool(going)


def _asks_for(patterns: Collection[str], path: str) -> bool:
    return not patterns or some([path], *patterns)
