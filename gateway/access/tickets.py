"""Tickets: replace the key for a client that cannot send headers, such as EventSource (S-08).

A ticket is valid once, for one path, for a minute. A stream that was opened with one also sets a cookie (a pass), which
with the used ticket opens it again after a lost connection. One gateway stores SHA-256 digests of its tickets; several
sign them. Knows no route.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

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


class TicketOffice(Protocol):
    """What gives tickets to known owners, and accepts them from anyone who has one."""

    def give(self, owner: str, path: str) -> str: ...

    def open(self, ticket: str, path: str, cookies: Mapping[str, str]) -> Opened | None: ...


class Tickets:
    """Tickets of one gateway: given to a known owner, accepted from anyone who has one."""

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


class SharedTickets:
    """Tickets that every gateway of a fleet accepts: signed with a secret that they share, so that none stores them.

    A ticket is one line: nonce, end, owner, path and their signature. Which were used is told to the others, and may be
    lost: a ticket is then valid once more at another gateway, until its minute is over. A pass is a second signature.
    """

    def __init__(
        self, secret: bytes, clock: Callable[[], float], on_use: Callable[[str], None] = lambda digest: None
    ) -> None:
        """`clock` is the shared store's, in seconds. `on_use` gets the digest of each used ticket."""
        self._secret = secret
        self._clock = clock
        self._on_use = on_use
        self._used: OrderedDict[str, float] = OrderedDict()
        """Used tickets by digest, with the time after which they need not be known."""

    def give(self, owner: str, path: str) -> str:
        """A ticket with which `path` can be opened once as `owner`."""
        body = json.dumps([secrets.token_urlsafe(12), round(self._clock() + LIVES_S, 3), owner, path]).encode()
        return f"{_base64(body)}.{self._sign(b'ticket', body)}"

    def note_used(self, digest: str) -> None:
        """A ticket was used at another gateway."""
        while self._used and (len(self._used) >= MOST or next(iter(self._used.values())) <= self._clock()):
            self._used.popitem(last=False)
        self._used[digest] = self._clock() + LIVES_S

    def open(self, ticket: str, path: str, cookies: Mapping[str, str]) -> Opened | None:
        """Open a ticket, or reopen a used one by the pass from its first use; otherwise None."""
        body = self._body(ticket)
        if body is None:
            return None
        _, until, owner, of_path = json.loads(body)
        digest, now = hashlib.sha256(body).digest(), self._clock()  # the ticket has other spellings
        secret = self._sign(b"pass", body)
        is_first = digest.hex() not in self._used and now < until
        if is_first:
            self.note_used(digest.hex())
            self._on_use(digest.hex())
        if of_path != path:
            return None
        if is_first:
            life = f"Max-Age={PASS_LIVES_S}; HttpOnly; SameSite=Strict"
            return Opened(owner, f"{_name(digest)}={secret}; Path={path}; {life}".encode())
        sent = cookies.get(_name(digest), "")
        is_pass = hmac.compare_digest(sent.encode(), secret.encode()) and now < until + PASS_LIVES_S
        return Opened(owner) if is_pass else None

    def _body(self, ticket: str) -> bytes | None:
        """What the ticket says; None where this fleet has not signed it."""
        encoded, _, signature = ticket.partition(".")
        try:
            body = base64.urlsafe_b64decode(encoded.encode() + b"=" * (-len(encoded) % 4))
        except ValueError:
            return None
        is_ours = hmac.compare_digest(self._sign(b"ticket", body).encode(), signature.encode("utf-8", "replace"))
        return body if is_ours else None

    def _sign(self, purpose: bytes, body: bytes) -> str:
        return _base64(hmac.new(self._secret, purpose + b"\0" + body, hashlib.sha256).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _name(digest: bytes) -> str:
    return PASS_NAME + digest.hex()[:16]


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()
