"""Keys: which client is calling, the credentials that carry keys, and a limit on wrong guesses. Knows no route.

Only SHA-256 digests are stored, and every one is compared each time, so that timing reveals nothing (S-07).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stat
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.access.addresses import counted_as
from gateway.settings import SettingsError

MIN_KEY_CHARS = 16
MOST_CLIENTS = 4096
"""Clients whose wrong keys are counted separately."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[!-~]{1,256}")
_CLIENT = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Guesses:
    """Wrong keys by client: after `most` in `window_s` seconds further ones must wait (S-09).

    Counts `MOST_CLIENTS` of them. While the table is full, further clients share one count, so that nobody can push
    out an own entry.
    """

    def __init__(self, most: int = 10, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._others: deque[float] = deque(maxlen=most)

    def wait_s(self, address: str) -> int:
        """Whole seconds until a wrong key of `address` may be tried again; 0 if now."""
        times = self._times_of(counted_as(address))
        oldest_that_counts = self._clock() - self._window_s
        while times and times[0] <= oldest_that_counts:
            times.popleft()
        if len(times) < self._most:
            return 0
        return max(1, round(times[0] - oldest_that_counts))

    def wrong(self, address: str) -> None:
        name, now = counted_as(address), self._clock()
        while self._times:
            first = next(iter(self._times.values()))  # the client whose last wrong key is the oldest
            if first and first[-1] > now - self._window_s:
                break
            self._times.popitem(last=False)
        if name not in self._times and len(self._times) < MOST_CLIENTS:
            self._times[name] = deque(maxlen=self._most)
        self._times_of(name).append(now)
        if name in self._times:
            self._times.move_to_end(name)

    def _times_of(self, name: str) -> deque[float]:
        times = self._times.get(name)
        if times is not None:
            return times
        return self._others if len(self._times) >= MOST_CLIENTS else deque()


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of this server by name; empty means that no key is required."""

    digests: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    guesses: Guesses = field(default_factory=Guesses, repr=False, compare=False)

    @classmethod
    def of(cls, pairs: Mapping[str, str]) -> Keys:
        return cls({name: _digest(key) for name, key in pairs.items()})

    @classmethod
    def load(cls, path: Path | None) -> Keys:
        """The keys from a file with lines `name key`; `#` starts a comment line.

        Raises: SettingsError.
        """
        if path is None:
            return cls()
        try:
            mode = path.stat().st_mode
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SettingsError(f"access.keys_file {path}: cannot be read: {reason}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise SettingsError(f"access.keys_file {path}: others may read it; run chmod 600 on it")
        pairs: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not _NAME.fullmatch(words[0]) or not _KEY.fullmatch(words[1]):
                raise SettingsError(f"access.keys_file {path} line {number}: must be a name and a key")
            if len(words[1]) < MIN_KEY_CHARS:
                raise SettingsError(
                    f"access.keys_file {path} line {number}: a key has {MIN_KEY_CHARS} characters or more"
                )
            if words[0] in pairs:
                raise SettingsError(f"access.keys_file {path} line {number}: the name {words[0]} is there twice")
            pairs[words[0]] = words[1]
        if not pairs:
            raise SettingsError(f"access.keys_file {path}: holds no key")
        return cls.of(pairs)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def __repr__(self) -> str:
        return f"Keys({', '.join(self.digests)})"

    def name_of(self, key: str) -> str | None:
        """The name of `key`; None if it is none of ours."""
        given = _digest(key)
        match: str | None = None
        for name, digest in self.digests.items():
            if hmac.compare_digest(digest, given):
                match = name
        return match


def credential(headers: Mapping[bytes, bytes]) -> str | None:
    """The key in a request: Bearer, the password of Basic, or X-API-Key; None if there is none.

    AUTOMATIC1111's clients send `Authorization: Basic ` with nothing after it, which is no credential.
    """
    scheme, _, rest = headers.get(b"authorization", b"").strip().partition(b" ")
    rest = rest.strip()
    if not rest:
        return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None
    if scheme.lower() == b"bearer":
        return rest.decode("latin-1")
    if scheme.lower() == b"basic":
        try:
            pair = base64.b64decode(rest, validate=True)
        except binascii.Error:
            return ""
        return pair.partition(b":")[2].decode("latin-1")
    return ""


def client_id(headers: Mapping[bytes, bytes]) -> str | None:
    """X-Client-Id: how a client without a key names itself."""
    name = headers.get(b"x-client-id", b"").decode("latin-1")
    return name if _CLIENT.fullmatch(name) else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
