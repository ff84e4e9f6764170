"""Round robin for a few slots: addresses in turn, and the owners of one address in turn. Pure asyncio.

Without keys a client chooses its owner name itself, so slots are first shared among addresses. One slot is reserved for
work that is known to be short, so that no address can fill them all with long work.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.errors import TooManyFiles, Unavailable

MIB = 1024 * 1024
RETRY_S = 5


@dataclass(frozen=True, slots=True)
class Share:
    """Who waits: `peer` is `key:NAME` if there is a key, otherwise the address; `owner` is that of jobs."""

    peer: str = ""
    owner: str = ""


ANYBODY = Share()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait: files and bytes of one owner, of one peer, in all."""

    owner: tuple[int, int] = (32, 128 * MIB)
    peer: tuple[int, int] = (64, 256 * MIB)
    total: tuple[int, int] = (256, 512 * MIB)


@dataclass(slots=True, eq=False)
class _Ticket:
    share: Share
    size: int
    is_short: bool
    called: asyncio.Future[None]


@dataclass(slots=True)
class RoundRobin:
    """`slots` at the same time: one per owner, all but one per peer; the last one takes short work of any peer."""

    slots: int = 3
    bounds: Bounds = Bounds()
    _waiting: dict[str, dict[str, deque[_Ticket]]] = field(default_factory=dict)
    """By peer and owner; the last one served is the last one here."""
    _running: Counter[str] = field(default_factory=Counter)
    """By peer, and by owner with its peer as prefix."""
    _files: Counter[str] = field(default_factory=Counter)
    _bytes: Counter[str] = field(default_factory=Counter)
    _busy: int = 0
    _changed_s: float = field(default_factory=time.monotonic)

    @property
    def waiting(self) -> int:
        return self._files[""]

    @property
    def still_s(self) -> float:
        """Seconds for which something has waited while nothing started or ended."""
        return time.monotonic() - self._changed_s if self._busy and self.waiting else 0.0

    @asynccontextmanager
    async def slot(self, share: Share, size: int = 0, *, is_short: bool = False) -> AsyncIterator[None]:
        """A slot when it is this one's turn. Raises: TooManyFiles, Unavailable."""
        await self.take(share, size, is_short=is_short)
        try:
            yield
        finally:
            self.give_back(share)

    async def take(self, share: Share, size: int = 0, *, is_short: bool = False) -> None:
        """Wait for a slot, which must be given back. Raises: TooManyFiles, Unavailable."""
        self._check(share, size)
        ticket = _Ticket(share, size, is_short, asyncio.get_running_loop().create_future())
        self._count(ticket, 1)
        self._waiting.setdefault(share.peer, {}).setdefault(share.owner, deque()).append(ticket)
        if not self._busy:
            self._changed_s = time.monotonic()
        self._call()
        try:
            await ticket.called
        except BaseException:
            if ticket.called.done() and not ticket.called.cancelled():
                self.give_back(share)
            else:
                self._remove(ticket)
            raise

    def give_back(self, share: Share) -> None:
        """Free a slot."""
        self._occupy(share, -1)
        self._call()

    def _check(self, share: Share, size: int) -> None:
        for key, most in zip(_keys(share), (self.bounds.total, self.bounds.peer, self.bounds.owner), strict=True):
            files, room = most
            if self._files[key] >= files or (self._files[key] and self._bytes[key] + size > room):
                if key == "":
                    raise Unavailable("Too many pictures are waiting to be read.", retry_after_s=RETRY_S)
                raise TooManyFiles(retry_after_s=RETRY_S)

    def _call(self) -> None:
        """Give free slots to those whose turn it is."""
        while self._busy < self.slots and (ticket := self._next()) is not None:
            self._remove(ticket)
            if not ticket.called.done():
                self._occupy(ticket.share, 1)
                ticket.called.set_result(None)

    def _next(self) -> _Ticket | None:
        for peer, owners in self._waiting.items():
            is_last = self._running[peer] >= max(1, self.slots - 1)
            for owner, line in owners.items():
                if not self._running[_owner_key(Share(peer, owner))] and (line[0].is_short or not is_last):
                    owners[owner] = owners.pop(owner)
                    self._waiting[peer] = self._waiting.pop(peer)
                    return line[0]
        return None

    def _remove(self, ticket: _Ticket) -> None:
        owners = self._waiting.get(ticket.share.peer, {})
        line = owners.get(ticket.share.owner, deque())
        if ticket not in line:
            return
        line.remove(ticket)
        self._count(ticket, -1)
        if not line:
            del owners[ticket.share.owner]
        if not owners:
            del self._waiting[ticket.share.peer]

    def _count(self, ticket: _Ticket, by: int) -> None:
        for key in _keys(ticket.share):
            self._files[key] += by
            self._bytes[key] += by * ticket.size
            if not self._files[key]:
                del self._files[key], self._bytes[key]

    def _occupy(self, share: Share, by: int) -> None:
        self._busy += by
        self._changed_s = time.monotonic()
        for key in (share.peer, _owner_key(share)):
            self._running[key] += by
            if not self._running[key]:
                del self._running[key]


def _owner_key(share: Share) -> str:
    return f"{share.peer}\0{share.owner}"


def _keys(share: Share) -> tuple[str, str, str]:
    """The keys of the total, the peer and the owner."""
    return "", f"{share.peer}\0", f"{share.peer}\0\0{share.owner}"
