"""Memory of all request bodies together, and each client's share of it (S-11). Knows only counts.

Sizes are bytes of bodies as received. Everything runs in the event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from gateway.errors import BodyMemoryFull

SMALL_BYTES = 256 * 1024
"""The first bytes of every body: never refused and not counted, so that small requests are always accepted."""
SHARE = 2
"""One client holds at most this part of the sum, or one body of the largest size."""
RETRY_S = 5


class BodyMemory:
    """A sum for all bodies, and a share of it for each client.

    The sum counts received bytes, so that an announcement alone holds none of it. A client's share counts announced
    bytes, so that its bodies do not all stop half-way. `freed` is called when a lease gives memory back.
    """

    def __init__(
        self, most_bytes: int, largest_bytes: int, *, freed: Callable[[int], None] = lambda count: None
    ) -> None:
        self.most_bytes = max(most_bytes, largest_bytes)
        self.share_bytes = max(self.most_bytes // SHARE, largest_bytes)
        self.used_bytes = 0
        self._of: Counter[str] = Counter()
        self._freed = freed

    def lease(self) -> Lease:
        """A lease for one body, empty at first."""
        return Lease(self)

    def fits(self, clients: Sequence[str], share_bytes: int, sum_bytes: int) -> bool:
        """Whether so many more bytes fit into the sum and into the share of each of `clients`."""
        return self.used_bytes + sum_bytes <= self.most_bytes and all(
            self._of[name] + share_bytes <= self.share_bytes for name in clients
        )

    def add(self, clients: Sequence[str], share_bytes: int, sum_bytes: int) -> None:
        self.used_bytes += sum_bytes
        for name in clients:
            self._of[name] += share_bytes
            if self._of[name] <= 0:
                del self._of[name]
        if sum_bytes < 0:
            self._freed(-sum_bytes)

    @property
    def clients(self) -> int:
        """How many clients hold any memory."""
        return len(self._of)


class Lease:
    """Memory of one body: grows while it arrives, until `release`."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.clients: tuple[str, ...] = ()
        """The names under which its client is counted; set before the first byte."""
        self._announced_bytes = 0
        self._arrived_bytes = 0

    def announce(self, size: int) -> None:
        """Count the body's announced size. Raises: BodyMemoryFull."""
        counted = max(0, size - SMALL_BYTES)
        if counted:
            self._check(counted, counted)
            self._memory.add(self.clients, counted, 0)
            self._announced_bytes = counted

    def arrived(self, total: int) -> None:
        """Count `total` bytes of this body received so far. Raises: BodyMemoryFull."""
        counted = max(0, total - SMALL_BYTES)
        more, beyond = counted - self._arrived_bytes, max(0, counted - self._announced_bytes)
        if more > 0:
            self._check(beyond, more)
            self._memory.add(self.clients, beyond, more)
            self._announced_bytes += beyond
            self._arrived_bytes = counted

    def keep(self, size: int) -> None:
        """Give back all memory except that of `size` bytes."""
        counted = max(0, size - SMALL_BYTES)
        announced, arrived = (min(counted, size_held) for size_held in (self._announced_bytes, self._arrived_bytes))
        freed = announced - self._announced_bytes, arrived - self._arrived_bytes
        self._announced_bytes, self._arrived_bytes = announced, arrived
        if any(freed):
            self._memory.add(self.clients, *freed)

    def release(self) -> None:
        """Give back all memory; a second call does nothing."""
        if self._announced_bytes or self._arrived_bytes:
            self.keep(0)

    def _check(self, share_bytes: int, sum_bytes: int) -> None:
        if not self._memory.fits(self.clients, share_bytes, sum_bytes):
            raise BodyMemoryFull(retry_after_s=RETRY_S)
