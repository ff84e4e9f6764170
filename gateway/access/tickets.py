"""Tickets: what a client that cannot send headers, such as EventSource, shows instead of its key (S-08).

Good once, for one path, for a minute. Only SHA-256 digests are kept. Knows no route.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LIVES_S = 60.0
MOST = 4096
"""Unused ones; the oldest go first."""


@dataclass(frozen=True, slots=True)
class _Given:
    owner: str
    path: str
    until: float


class Tickets:
    """Given to one who is known, taken from whoever brings them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given: OrderedDict[bytes, _Given] = OrderedDict()

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


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()
