"""S3: files of one folder of a bucket, below a prefix. Knows obstore, which is imported with this module.

No text of an answer of the storage, no address and no key is shown or logged: only the status and S3's error code.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from gateway.errors import StorageFault, StorageFull
from gateway.files.address import BucketAddress, check_endpoint
from gateway.files.base import FilesRefused, FileStat, KeyTaken, checked, is_key
from gateway.files.clock import PlaceClock

log = logging.getLogger("gateway.files")

P = ParamSpec("P")
T = TypeVar("T")

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Variables with the endpoint, the first one before the others."""
THREADS = 16
"""Calls that wait for the storage at the same time: where it is silent, no other thread waits with them."""
HEADS = 8
RETRIES = 3
TRUSTED_S = 5.0
"""Seconds for which a write shows that the next one would work, too."""
REST_S = 1.0
"""Seconds after a call without an answer in which further calls fail at once."""
METADATA_HOST = "169.254.169.254"
"""Machines of a cloud give keys at this address, which obstore asks where it has none."""
PROBE = "probe"
PROBE_BYTES = 64
PROBE_MOST_BYTES = 64 * 2**20
FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity"})
REFUSED = frozenset({"401", "403"})
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_ERRORS = (BaseError, OSError)
"""What calls of obstore raise: its own errors and FileNotFoundError."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """What reaches a bucket; None: as the AWS_* variables say. `timeout_s` bounds one call, tries included."""

    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    allow_http: bool = False
    ca_file: Path | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of a failed call: HTTP's status and S3's code; both empty where there was no answer."""

    status: str
    code: str

    @classmethod
    def of(cls, error: BaseException) -> _Answer:
        text = str(error)
        status, code = _STATUS.search(text), _CODE.search(text)
        return cls(status[1] if status else "", code[1] if code else "")

    @property
    def is_final(self) -> bool:
        """Whether the same call would fail again: the bucket, the key or the region is wrong."""
        return self.status[:1] in ("3", "4") and self.status not in ("408", "429")

    def __str__(self) -> str:
        return " ".join(filter(None, (self.status, self.code))) or "no answer"


class Bucket:
    """A bucket below a prefix, with what its folders share: connections, threads, the clock and the last fault."""

    def __init__(self, address: BucketAddress, options: S3Options) -> None:
        """Raises: FilesRefused where the options cannot be used."""
        self.address = address
        self._silent_at: float | None = None
        self._written_at: float | None = None
        self._told = ""
        self._is_prepared = False
        self.is_conditional: bool | None = None
        """Whether the storage knows conditional writes; None: not tried yet."""
        self.clock = PlaceClock(self._read_clock)
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
        self.heads = ThreadPoolExecutor(HEADS, thread_name_prefix="file heads")
        try:
            self.store = S3Store(address.bucket, prefix=address.prefix or None, **_config(options))
        except (*_ERRORS, ValueError):
            raise FilesRefused("the bucket cannot be used with these settings and AWS_* variables") from None

    def prepare(self) -> None:
        """Check that the bucket takes files; one that does not answer may do so later. Raises: FilesRefused."""
        if self._is_prepared:
            return
        self._is_prepared = True
        try:
            self._probe()
        except _ERRORS as error:
            answer, name = _Answer.of(error), f"the bucket {self.address.bucket}"
            if METADATA_HOST in str(error):
                sentence = f"{name} needs a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            elif not answer.is_final:
                self._silent_at = time.monotonic()
                return self._tell(answer, "the bucket of files")
            elif answer.status == "404":
                sentence = f"there is no bucket {self.address.bucket}"
            elif answer.status in REFUSED:
                sentence = f"{name} refuses this key ({answer})"
            else:
                sentence = f"{name} cannot be used ({answer})"
            raise FilesRefused(sentence) from None

    def _knows_conditions(self) -> bool:
        """Whether the storage refuses to create an object that exists. Raises: obstore's errors."""
        try:
            self.store.put(PROBE, b"", mode="create", use_multipart=False)
        except AlreadyExistsError:
            return True
        except _ERRORS as error:
            if _Answer.of(error).status not in ("400", "501"):
                raise
        log.warning("the storage knows no conditional writes (If-None-Match): a file is looked for before it is made")
        return False

    def check(self, place: str, count: int) -> None:
        """Check that the bucket takes `count` bytes. Raises: StorageFault."""
        if count > PROBE_BYTES or not self._is_trusted:
            self.call(place, self._probe, min(count, PROBE_MOST_BYTES), rests=False)

    @property
    def _is_trusted(self) -> bool:
        """Whether a write succeeded just now, and no call has failed since."""
        return self._written_at is not None and time.monotonic() - self._written_at < TRUSTED_S

    def _probe(self, count: int = 0) -> None:
        self.clock.note(self._read_clock(count))
        if self.is_conditional is None:
            self.is_conditional = self._knows_conditions()
        self.written()

    def _read_clock(self, count: int = 0) -> float:
        """What the storage's clock shows when it has taken `count` bytes. Raises: obstore's errors."""
        self.store.put(PROBE, os.urandom(max(PROBE_BYTES, count)), use_multipart=False)
        return self.store.head(PROBE)["last_modified"].timestamp() + 0.5  # it has whole seconds

    def call(self, place: str, call: Callable[..., T], *args: Any, rests: bool = True, **named: Any) -> T:
        """Run a call of the storage. Raises: StorageFault of `place`; AlreadyExistsError."""
        if rests and self._silent_at is not None and time.monotonic() - self._silent_at < REST_S:
            raise StorageFault(f"{_capital(place)} does not answer.")
        try:
            result = call(*args, **named)
        except AlreadyExistsError:
            raise
        except _ERRORS as error:
            answer = _Answer.of(error)
        else:
            self._silent_at = None
            self._told = ""
            return result
        self._fail(place, answer)  # here, where no error with the address is the context of this one

    def _fail(self, place: str, answer: _Answer) -> NoReturn:
        """Raises: StorageFault."""
        self._written_at = None
        is_full = answer.code in FULL or answer.status == "507"
        if not answer.is_final and not is_full:
            self._silent_at = time.monotonic()
        self._tell(answer, place)
        if is_full:
            raise StorageFull(f"There is no room left in {place}.")
        if not answer.status:
            raise StorageFault(f"{_capital(place)} does not answer.")
        if answer.code == "NoSuchBucket":
            raise StorageFault(f"{_capital(place)} is missing.")
        if answer.status in REFUSED:
            raise StorageFault(f"{_capital(place)} refuses the gateway.")
        raise StorageFault(f"{_capital(place)} reports errors.")

    def _tell(self, answer: _Answer, place: str) -> None:
        """Log a failed call, once for each reason until one succeeds."""
        if (text := str(answer)) != self._told:
            self._told = text
            log.warning("%s: %s", place, text)

    def written(self) -> None:
        self._written_at = time.monotonic()


class S3Files:
    """The files below `folder` in a bucket; `place` is their name in messages."""

    root: Path | None = None
    is_shared = True

    def __init__(self, bucket: Bucket, folder: str, *, place: str) -> None:
        self._bucket = bucket
        self._folder = folder
        self.clock = bucket.clock
        self.place = place

    def prepare(self) -> None:
        self._bucket.prepare()

    def check(self, count: int = 0) -> None:
        self._bucket.check(self.place, count)

    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        path = self._path(key)
        kind = {"Content-Type": "image/png"} if key.endswith(".png") else {}
        put = partial(self._bucket.store.put, path, data, attributes=kind, use_multipart=False)
        if create and self._bucket.is_conditional is False and self._is_there(key, data):
            return
        is_taken = False
        try:
            self._call(put, mode="create" if create and self._bucket.is_conditional is not False else "overwrite")
        except StorageFull as full:
            full.needed_bytes = len(data)
            raise
        except AlreadyExistsError:
            is_taken = True  # perhaps by an earlier try of this call, whose answer was lost
        if is_taken and not self._is_there(key, data):
            raise StorageFault(f"{_capital(self.place)} reports errors.")  # another write of the key has not ended
        self._bucket.written()

    def _is_there(self, key: str, data: bytes) -> bool:
        """Whether the file is there with these bytes. Raises: KeyTaken, StorageFault."""
        there = self.get(key)
        if there is not None and there != data:
            raise KeyTaken(key)
        return there is not None

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        return self._call(self._found, lambda: bytes(self._bucket.store.get(path).bytes()))

    def tail(self, key: str, count: int) -> bytes | None:
        status = self.stat(key)
        if status is None:
            return None
        path, start = self._path(key), max(0, status.bytes - count)
        if start == status.bytes:
            return b""
        return self._call(self._found, lambda: bytes(self._bucket.store.get_range(path, start=start, end=status.bytes)))

    def stat(self, key: str) -> FileStat | None:
        path = self._path(key)
        return self._call(self._stat, path)

    def _stat(self, path: str) -> FileStat | None:
        status = self._found(lambda: self._of(self._bucket.store.head(path)))
        if status is None:  # an answer to HEAD does not say what is missing: the file, or the bucket
            self._found(lambda: self._bucket.store.get(path))
        return status

    def stats(self, keys: Iterable[str]) -> dict[str, FileStat]:
        named = {key: self._path(key) for key in keys}
        results = self._bucket.heads.map(lambda path: self._call(self._stat, path), named.values())
        return {key: status for key, status in zip(named, results, strict=True) if status is not None}

    def list(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        start = f"{self._folder}/{prefix[:-1]}"  # keys come in order, and those after this one begin with the prefix
        chunks = iter(self._bucket.store.list(self._folder, offset=start if prefix else None))
        while (chunk := self._call(next, chunks, None)) is not None:
            for meta in chunk:
                name = meta["path"].removeprefix(f"{self._folder}/")
                if prefix and not name.startswith(prefix) and name > prefix:
                    return
                if name.startswith(prefix) and is_key(name):
                    yield name, self._call(self._of, meta)

    def remove(self, key: str) -> None:
        path = self._path(key)
        self._call(self._found, lambda: self._bucket.store.delete(path))

    def remove_halves(self, prefix: str, older_than_s: float = 0.0) -> None:
        """Nothing: S3 shows an object only when it is whole."""

    def url(self, key: str, valid_s: float) -> str | None:
        path = self._path(key)
        return self._call(lambda: obstore.sign(self._bucket.store, "GET", path, timedelta(seconds=valid_s)))

    async def run(self, call: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._bucket.threads, partial(call, *args, **named))

    def _path(self, key: str) -> str:
        return f"{self._folder}/{checked(key)}"

    def _call(self, call: Callable[..., T], *args: Any, **named: Any) -> T:
        return self._bucket.call(self.place, call, *args, **named)

    def _found(self, call: Callable[[], T]) -> T | None:
        """What a call returns; None where the object, and not the bucket, is missing. Raises: obstore's errors."""
        try:
            return call()
        except FileNotFoundError as error:
            if _Answer.of(error).code == "NoSuchBucket":
                raise
            return None

    def _of(self, meta: Any) -> FileStat:
        return FileStat(meta["size"], *self.clock.made(meta["last_modified"].timestamp()))


def _config(options: S3Options) -> dict[str, Any]:
    """The arguments of obstore's store; it reads the AWS_* variables for what is not given. Raises: FilesRefused."""
    endpoint = options.endpoint or next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint is not None:
        try:
            check_endpoint(endpoint, allows_http=options.allow_http)
        except ValueError as error:
            name = "files.endpoint" if options.endpoint else "AWS_ENDPOINT_URL"
            raise FilesRefused(f"{name} {error}") from None
    given = {
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,  # else the variable of that name would count before the setting
        "region": options.region,
        "access_key_id": options.access_key_id,
        "secret_access_key": options.secret_access_key,
    }
    request_s = options.timeout_s * 0.4
    client: dict[str, Any] = {
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
        "allow_invalid_certificates": False,
        "timeout": timedelta(seconds=request_s),
        "connect_timeout": timedelta(seconds=min(5.0, request_s)),
    }
    if options.ca_file is not None:
        try:
            client["root_certificate"] = options.ca_file.read_bytes()
        except OSError as error:
            raise FilesRefused(f"files.ca_file cannot be read: {error.strerror}") from None
    retries = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=options.timeout_s * 0.2),
        "backoff": {"max_backoff": timedelta(seconds=min(1.0, options.timeout_s * 0.05))},
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "client_options": client,
        "retry_config": retries,
        "disable_bulk_delete": True,  # some storages do not have it
    }


def _capital(place: str) -> str:
    return place[:1].upper() + place[1:]
