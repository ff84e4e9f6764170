"""Tickets: replace the key for a client that cannot send headers, such as EventSource (S-08).

A ticket is valid once, for one path, for a minute. A stream that was opened with one also sets a cookie (a pass), which
with the used ticket opens it again after a lost connection. Only SHA-256 digests are stored. Knows no route.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LIVES_S = 60.0
MOST = 4096
"""Unused tickets; the oldest are dropped first. The same number of passes."""
PASS_LIVES_S = 24 * 3600
PASS_NAME = "mflux-gateway-stream-"
"""Prefix of the cookie's name, followed by part of its ticket's digest, so that one browser can have several."""


@dataclass(frozen=True, slots=True)
class _Grant:
    owner: str
    path: str
    until: float


@dataclass(frozen=True, slots=True)
class _Pass:
    digest: bytes
    owner: str
    path: str
    until: float


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened ticket: its owner, and the Set-Cookie that opens it again; None if a cookie opened it."""

    owner: str
    cookie: bytes | None = None


class Tickets:
    """Tickets: given to a known owner, accepted from anyone who has one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._grants: OrderedDict[bytes, _Grant] = OrderedDict()
        self._passes: OrderedDict[bytes, _Pass] = OrderedDict()
        """Passes by the digest of the used ticket."""

    def give(self, owner: str, path: str) -> str:
        """A ticket with which `path` can be opened once as `owner`."""
        ticket = secrets.token_urlsafe(32)
        self._grants[_digest(ticket)] = _Grant(owner, path, self._clock() + LIVES_S)
        while len(self._grants) > MOST or next(iter(self._grants.values())).until <= self._clock():
            self._grants.popitem(last=False)
        return ticket

    def take(self, ticket: str, path: str) -> str | None:
        """The ticket's owner; None if it is used, expired or for another path. The ticket is used up in any case."""
        grant = self._grants.pop(_digest(ticket), None)
        return grant.owner if grant is not None and grant.path == path and self._clock() < grant.until else None

    def open(self, ticket: str, path: str, cookies: Mapping[str, str]) -> Opened | None:
        """Open a ticket, or reopen a used one by the pass from its first use; otherwise None."""
        digest = _digest(ticket)
        if (owner := self.take(ticket, path)) is not None:
            secret = secrets.token_urlsafe(32)
            self._passes[digest] = _Pass(_digest(secret), owner, path, self._clock() + PASS_LIVES_S)
            while len(self._passes) > MOST or next(iter(self._passes.values())).until <= self._clock():
                self._passes.popitem(last=False)
            life = f"Max-Age={PASS_LIVES_S}; HttpOnly; SameSite=Strict"
            return Opened(owner, f"{_name(digest)}={secret}; Path={path}; {life}".encode())
        former, secret_sent = self._passes.get(digest), cookies.get(_name(digest))
        if former is None or secret_sent is None or former.path != path or former.until <= self._clock():
            return None
        return Opened(former.owner) if hmac.compare_digest(_digest(secret_sent), former.digest) else None


def _name(digest: bytes) -> str:
    return PASS_NAME + digest.hex()[:16]


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()
