"""The download of repositories of the hub, file by file; runs in the download child, which alone has the token.

`snapshot_download` is not used: since huggingface_hub 1.0 it discards the partial files of a killed process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TypeVar

import httpx
from huggingface_hub import HfApi, constants, get_token, is_offline_mode, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.file_download import hf_hub_url, http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from engine.catalog import HubFiles
from gateway.disk import sync, sync_path
from gateway.downloads.reasons import CannotFetch, Damaged, as_cannot_fetch, gone, on_disk
from gateway.downloads.wire import Fetch
from gateway.models.folders import (
    INCOMPLETE,
    RECORD,
    Entry,
    Record,
    cached,
    folder_of,
    list_of,
    lost_of,
    record_of,
    staging_of,
)
from gateway.models.needed import INDEX, missing, missing_of_index, shards_in

TAKEN = {".safetensors", ".json", ".txt", ".jinja", ".model", ".otf", ".ttf"}
"""Suffixes of weights, tokenizers and fonts. A pickle is never fetched, whatever the patterns."""
CHUNK_BYTES = 256 * 1024
"""Bytes of one write; huggingface_hub's 10 MB would show no progress for minutes on a slow line."""
ROOM = 1.1
"""Free space that a download needs before it begins, as a multiple of its size."""
PAUSES_S = (1.0, 4.0, 15.0)
"""Seconds between tries while the hub cannot be reached. `http_get` itself resumes five times."""
GB = 1e9

T = TypeVar("T")


class Download:
    """The download of one request. `counted()` may be called from another thread."""

    def __init__(self, fetch: Fetch, *, endpoint: str | None = None, token: str | None = None) -> None:
        self._models_dir = Path(fetch.models_dir)
        self._sources = fetch.sources
        self._fall_back = fetch.fall_back
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        set_client_factory(lambda: _client(self._endpoint))
        self._token = token or get_token() or False
        self._api = HfApi(endpoint=self._endpoint, token=self._token)
        self._done_bytes = 0
        self._total_bytes: int | None = None
        self._growing: Path | None = None

    def run(self) -> None:
        """Download all files and move them to their places. Raises: CannotFetch."""
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
        with on_disk():
            (self._models_dir / INCOMPLETE).mkdir(parents=True, exist_ok=True)
            lock = (self._models_dir / INCOMPLETE / "lock").open("wb")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the child of a killed gateway may still run for a moment
            self._run()

    def _run(self) -> None:
        for source in self._sources:
            with as_cannot_fetch(source.repo, self._endpoint):
                self._check_place(source)
        with on_disk():
            listed = [(source, self._record(source)) for source in self._sources]
        total = sum(entry.size for _, record in listed for entry in record.files)
        self._done_bytes = sum(self._have(record, entry) for _, record in listed for entry in record.files)
        self._total_bytes = total
        with on_disk():
            linked = sum(self._linked(record, entry) for _, record in listed for entry in record.files)
            self._check_room(total - self._done_bytes - linked)
        for source, record in listed:
            with as_cannot_fetch(source.repo, self._endpoint):
                self._bring_indices(record)
        for source, record in listed:
            with as_cannot_fetch(source.repo, self._endpoint):
                self._bring(record)

    def keep_lists(self) -> None:
        """Store the list of files and its commit, without waiting for another download. Raises: CannotFetch."""
        for source in self._sources:
            with as_cannot_fetch(source.repo, self._endpoint):
                listed, file = self._listed(source), list_of(self._models_dir, source)
                file.parent.mkdir(parents=True, exist_ok=True)
                _write(file, listed.model_dump_json().encode())

    def counted(self) -> tuple[int, int] | None:
        """Bytes on disk and bytes in all; None before the sizes are known."""
        growing, total = self._growing, self._total_bytes
        if total is None:
            return None
        return min(total, self._done_bytes + (_size(growing) if growing is not None else 0)), total

    # ---- lists and sizes -------------------------------------------------------------------------

    def _check_place(self, source: HubFiles) -> None:
        """Check the place of a repository. Raises: CannotFetch where it has a folder that this gateway did not make."""
        place = folder_of(self._models_dir, source.repo)
        if place.exists() and record_of(place) is None:
            raise CannotFetch(
                f"The models folder has a folder {place.name} that is not ours; rename it, then try again."
            )
        staging_of(self._models_dir, source.repo).mkdir(parents=True, exist_ok=True)

    def _record(self, source: HubFiles) -> Record:
        """The record of a folder after the download: its files now, and those of this source. Raises: CannotFetch."""
        record = self._listed(source)
        if (lack := missing({entry.path for entry in record.files}, source.patterns)) is not None:
            raise _incomplete(source.repo, lack)
        staging = staging_of(self._models_dir, source.repo)
        begun = record_of(staging)
        if begun is not None and begun.revision != record.revision:
            for entry in set(begun.files) - set(record.files):
                (staging / entry.path).unlink(missing_ok=True)
        if (old := record_of(folder_of(self._models_dir, source.repo))) is not None:
            paths = {entry.path for entry in record.files}
            patterns = tuple(dict.fromkeys((*old.patterns, *source.patterns)))
            files = (*record.files, *(entry for entry in old.files if entry.path not in paths))
            record = record.model_copy(update={"patterns": patterns, "files": files})
        _write(staging / RECORD, record.model_dump_json().encode())
        return record

    def _listed(self, source: HubFiles) -> Record:
        """The hub's list of files of a source. Raises: CannotFetch."""
        record = record_of(folder_of(self._models_dir, source.repo))
        record = record or record_of(staging_of(self._models_dir, source.repo))
        with as_cannot_fetch(source.repo, self._endpoint):
            commit = self._patiently(lambda: self._commit(source, record))
            entries = self._patiently(lambda: self._entries(source, commit))
        if not any(entry.path.endswith(".safetensors") for entry in entries):
            raise CannotFetch(f"{source.repo} has no safetensors weights under the names that this model needs.")
        return Record(repo=source.repo, revision=commit, patterns=source.patterns, files=entries)

    def _commit(self, source: HubFiles, record: Record | None) -> str:
        """The commit of a source: that of its first download, so that the same model draws the same image."""
        revision = record.revision if record is not None else source.revision
        try:
            commit = self._api.model_info(source.repo, revision=revision).sha
        except RevisionNotFoundError:
            is_here = folder_of(self._models_dir, source.repo).exists()  # files of two commits are no model
            if is_here or source.repo not in self._fall_back:
                raise gone(source.repo, revision, is_here=is_here) from None
            print(f"{source.repo} has no commit {revision} any more: its main is taken", file=sys.stderr)
            commit = self._api.model_info(source.repo, revision="main").sha
        if commit is None:
            raise CannotFetch(f"The hub does not say which commit {source.repo} is at; try again later.")
        return commit

    def _entries(self, source: HubFiles, commit: str) -> tuple[Entry, ...]:
        listed = self._api.list_repo_tree(source.repo, recursive=True, revision=commit)
        files = {file.path: file for file in listed if isinstance(file, RepoFile)}
        paths = [path for path in sorted(files) if is_taken(path) and is_asked_for(path, source.patterns)]
        return tuple(Entry(path=path, size=files[path].size, digest=_digest_of(files[path])) for path in paths)

    def _check_room(self, missing: int) -> None:
        """Check the free space; a download that has begun waits for more. Raises: CannotFetch, OSError."""
        free = shutil.disk_usage(self._models_dir).free
        if missing * ROOM > free:
            raise CannotFetch(
                f"The download needs {missing * ROOM / GB:.1f} GB, and the models folder has {free / GB:.1f} GB free. "
                "Make room, or set models.cache_dir to a larger disk.",
                "disk_full",
                is_of_the_disk=self._done_bytes > 0,
                needed_bytes=int(missing * ROOM),
            )

    # ---- fetching --------------------------------------------------------------------------------

    def _have(self, record: Record, entry: Entry) -> int:
        """Bytes of a file that are on disk already."""
        if self._is_placed(record, entry):
            return entry.size
        whole = staging_of(self._models_dir, record.repo) / entry.path
        partial = _size(_partial(whole))
        return _size(whole) or (partial if partial <= entry.size else 0)

    def _is_placed(self, record: Record, entry: Entry) -> bool:
        old = record_of(folder_of(self._models_dir, record.repo))
        place = folder_of(self._models_dir, record.repo)
        return old is not None and entry in old.files and lost_of(place, [entry]) is None

    def _linked(self, record: Record, entry: Entry) -> int:
        """Bytes of a file that need no space: the Hugging Face cache has it on the same disk."""
        blob = None if self._have(record, entry) else cached(record.repo, entry)
        return entry.size if blob is not None and blob.stat().st_dev == self._models_dir.stat().st_dev else 0

    def _bring_indices(self, record: Record) -> None:
        """Fetch the lists of shards first: the shards that they name must exist before the first weights are fetched.

        Raises: CannotFetch.
        """
        staging, place = staging_of(self._models_dir, record.repo), folder_of(self._models_dir, record.repo)
        names = {entry.path for entry in record.files}
        for entry in (entry for entry in record.files if entry.path.endswith(INDEX)):
            file = place / entry.path if self._is_placed(record, entry) else staging / entry.path
            if not file.exists():
                self._file(record, entry, file)
            if (lack := missing_of_index(entry.path, names, shards_in(file.read_bytes()))) is not None:
                raise _incomplete(record.repo, lack)

    def _bring(self, record: Record) -> None:
        staging, place = staging_of(self._models_dir, record.repo), folder_of(self._models_dir, record.repo)
        new_files = [entry for entry in record.files if not self._is_placed(record, entry)]
        for entry in new_files:
            whole = staging / entry.path
            if not whole.exists():
                self._file(record, entry, whole)
        if (lost := lost_of(staging, new_files)) is not None:
            raise CannotFetch(f"{lost.path} of {record.repo} was removed while the rest came; try again.")
        if not place.exists():
            sync_path(staging)
            staging.rename(place)
            sync_path(place.parent)
            return
        for entry in new_files:  # more files of a repository in its place: its record is written last
            (place / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (staging / entry.path).replace(place / entry.path)
        (staging / RECORD).replace(place / RECORD)
        sync_path(place)
        shutil.rmtree(staging)

    def _file(self, record: Record, entry: Entry, whole: Path) -> None:
        """Fetch one file, check it and give it its name. Raises: CannotFetch, and what `as_cannot_fetch` converts."""
        partial = _partial(whole)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if self._borrowed(record, entry, partial):
            partial.replace(whole)
            return
        for is_last in (False, True):
            if _size(partial) > entry.size:
                partial.unlink()
            self._done_bytes -= _size(partial)
            self._growing = partial
            try:
                self._patiently(lambda: self._get(record, entry, partial))
                _check(partial, entry)
                break
            except Damaged:
                partial.unlink(missing_ok=True)
                if is_last:
                    raise CannotFetch(
                        f"{entry.path} of {record.repo} came damaged twice; the hub or a proxy on the way is at fault. "
                        "Try again later."
                    ) from None
            finally:
                self._growing = None
                self._done_bytes += _size(partial)
        partial.replace(whole)

    def _borrowed(self, record: Record, entry: Entry, partial: Path) -> bool:
        """Whether the Hugging Face cache had the file: it is linked, or copied from another disk."""
        if partial.exists() and partial.stat().st_nlink > 1:
            # A link of an earlier process that ended before the check. Nothing is ever written through such a link.
            self._done_bytes -= _size(partial)
            partial.unlink()
        blob = cached(record.repo, entry)
        if blob is None or _size(partial):
            return False
        partial.unlink(missing_ok=True)
        try:
            os.link(blob.resolve(), partial)
        except OSError:
            shutil.copyfile(blob, partial)
            sync_path(partial)
        try:
            _check(partial, entry)
        except Damaged:
            partial.unlink()
            return False
        self._done_bytes += entry.size
        return True

    def _get(self, record: Record, entry: Entry, partial: Path) -> None:
        """Download the rest of a file. Raises: Damaged, OSError, httpx.TransportError, HfHubHTTPError."""
        url = hf_hub_url(record.repo, entry.path, revision=record.revision, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        with partial.open("ab") as file:
            try:
                http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=entry.size)
            except HfHubHTTPError as error:
                if error.response.status_code == 416:
                    raise Damaged from None
                raise
            except OSError as error:
                if error.errno is not None:
                    raise
                raise Damaged from None  # "Consistency check failed"
            file.flush()
            sync(file.fileno())

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do `work`, with more tries where the network or the hub is at fault; other errors are raised at once."""
        for pause in PAUSES_S:
            try:
                return work()
            except httpx.TransportError:
                pass
            except HfHubHTTPError as error:
                if error.response.status_code < 500 and error.response.status_code != 429:
                    raise
            time.sleep(pause)
        return work()


def _client(endpoint: str) -> httpx.Client:
    """The HTTP client of the hub, which sends the token to the configured host only, also after redirects."""
    home = httpx.URL(endpoint)

    def before(request: httpx.Request) -> None:
        if is_offline_mode():
            raise OfflineModeIsEnabled
        if (request.url.scheme, request.url.host, request.url.port) != (home.scheme, home.host, home.port):
            request.headers.pop("authorization", None)

    return httpx.Client(
        event_hooks={"request": [before]}, follow_redirects=True, timeout=constants.DEFAULT_REQUEST_TIMEOUT
    )


def is_taken(path: str) -> bool:
    """Whether a file of a repository has a suffix that is fetched, and a name that stays below its folder."""
    is_plain = all(part and not part.startswith(".") for part in path.split("/"))
    return is_plain and "\\" not in path and path.isprintable() and PurePosixPath(path).suffix in TAKEN


def is_asked_for(path: str, patterns: Collection[str]) -> bool:
    """Whether one of the patterns matches this file, as huggingface_hub's `allow_patterns`."""
    return not patterns or any(fnmatch(path, pattern) for pattern in patterns)


def _incomplete(repo: str, lack: str) -> CannotFetch:
    return CannotFetch(
        f"{repo} is not whole on the hub: it lacks {lack}. No weights were fetched; try again later, or name another "
        "repository in models.hub."
    )


def _digest_of(file: RepoFile) -> str:
    return file.blob_id if file.lfs is None else file.lfs.sha256


def _check(partial: Path, entry: Entry) -> None:
    """Compare a file with its digest. Raises: Damaged."""
    with partial.open("rb") as file:
        if len(entry.digest) == 64:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        else:  # the git blob id of a small file
            content = file.read()
            digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if digest != entry.digest:
        raise Damaged


def _partial(whole: Path) -> Path:
    return whole.with_name(f"{whole.name}.incomplete")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _write(file: Path, data: bytes) -> None:
    new = file.with_name(f"{file.name}.new")
    with new.open("wb") as opened:
        opened.write(data)
        opened.flush()
        sync(opened.fileno())
    new.replace(file)
