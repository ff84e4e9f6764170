"""Tickets: what a client that cannot send headers, such as EventSource, shows instead of its key (S-08).

Good once, for one path, for a minute. Who opened a stream with one gets a pass, a cookie that opens it again where the
connection was lost, together with the used ticket. Only SHA-256 digests are kept. Knows no route.
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
"""Unused ones; the oldest go first. As many passes."""
PASS_LIVES_S = 24 * 3600
PASS_NAME = "mflux-gateway-stream-"
"""Of the cookie, followed by a part of its ticket's digest: streams of several owners in one browser are kept apart."""


@dataclass(frozen=True, slots=True)
class _Given:
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
    """What a ticket opened: whose it is, and the Set-Cookie that opens it again; None where it was opened by that."""

    owner: str
    cookie: bytes | None = None


class Tickets:
    """Given to one who is known, taken from whoever brings them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given: OrderedDict[bytes, _Given] = OrderedDict()
        self._passes: OrderedDict[bytes, _Pass] = OrderedDict()
        """By the digest of the ticket that was used."""

    def give(self, owner: str, path: str) -> str:
        """A ticket with which `path` is `owner`'s once."""
        ticket = secrets.token_urlsafe(32)
        self._given[_digest(ticket)] = _Given(owner, path, self._clock() + LIVES_S)
        while len(self._given) > MOST or next(iter(self._given.values())).until <= self._clock():
            self._given.popitem(last=False)
        return ticket

    def take(self, ticket: str, path: str) -> str | None:
        """Whose it was; None for one that was used, is past its time, or is for another path. It is used up anyway."""
        given = self._given.pop(_digest(ticket), None)
        return given.owner if given is not None and given.path == path and self._clock() < given.until else None

    def open(self, ticket: str, path: str, cookies: Mapping[str, str]) -> Opened | None:
        """Take a ticket, or where it was used open its stream again by the pass that its first use gave; else None."""
        digest = _digest(ticket)
        if (owner := self.take(ticket, path)) is not None:
            secret = secrets.token_urlsafe(32)
            self._passes[digest] = _Pass(_digest(secret), owner, path, self._clock() + PASS_LIVES_S)
            while len(self._passes) > MOST or next(iter(self._passes.values())).until <= self._clock():
                self._passes.popitem(last=False)
            life = f"Max-Age={PASS_LIVES_S}; HttpOnly; SameSite=Strict"
            return Opened(owner, f"{_name(digest)}={secret}; Path={path}; {life}".encode())
        known, shown = self._passes.get(digest), cookies.get(_name(digest))
        if known is None or shown is None or known.path != path or known.until <= self._clock():
            return None
        return Opened(known.owner) if hmac.compare_digest(_digest(shown), known.digest) else None


def _name(digest: bytes) -> str:
    return PASS_NAME + digest.hex()[:16]


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()
