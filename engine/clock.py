"""Deadlines that count only the time in which the event loop ran, and let it read waiting data before they expire.

A loop that stood still (SIGSTOP, ^Z, a sleeping Mac, a suspended virtual machine, a blocking call) has measured its own
silence and nobody else's. Used by the engine client and the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

BEAT_S = 0.5
"""Interval at which the loop is checked while a deadline is open."""
GAP_S = 1.0
"""A check that is later than this was not delayed by a busy loop: the time is not counted."""
GRACE_S = 5.0
"""After a gap every deadline has at least this much left, or its whole length where it is shorter."""
TURNS = 4
"""Iterations of the loop between the end of a deadline and its effect: what waits on pipes and sockets is read first.
"""


class Pulse:
    """Running time of one event loop. It is measured while it is held."""

    def __init__(self) -> None:
        self._held = 0
        self._beats = False
        self._seen_at = 0.0
        self._lost_s = 0.0
        self.gaps = 0
        """Number of times that the loop stood still while it was measured."""

    @classmethod
    def here(cls) -> Pulse:
        """The pulse of the running loop."""
        return _pulses.setdefault(asyncio.get_running_loop(), cls())

    def ran_s(self) -> float:
        """Seconds of a monotonic clock that stands still while the loop does."""
        now = time.monotonic()
        if self._beats and (late := now - self._seen_at - BEAT_S) > GAP_S:
            self._lost_s += late
            self.gaps += 1
        self._seen_at = now
        return now - self._lost_s

    def hold(self) -> None:
        self._held += 1
        if not self._beats:
            self._beats, self._seen_at = True, time.monotonic()
            asyncio.get_running_loop().call_later(BEAT_S, self._beat, asyncio.get_running_loop())

    def release(self) -> None:
        self._held -= 1

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ran_s()
        self._beats = self._held > 0
        if self._beats:
            loop.call_later(BEAT_S, self._beat, loop)


_pulses: WeakKeyDictionary[asyncio.AbstractEventLoop, Pulse] = WeakKeyDictionary()


class Alarm:
    """Alarm that calls `ring` once the loop has run for `after_s` seconds. `cancel` may be called at any time."""

    def __init__(self, after_s: float, ring: Callable[..., object], *arguments: object) -> None:
        self._loop = asyncio.get_running_loop()
        self._pulse = Pulse.here()
        self._ring, self._arguments = ring, arguments
        self._turns = 0
        self._pulse.hold()
        self._handle: asyncio.Handle | None = None
        self._begin(after_s)

    def _begin(self, after_s: float) -> None:
        self._after_s = after_s
        self._ends = self._pulse.ran_s() + after_s
        self._gaps = self._pulse.gaps
        self._turns = 0
        self._next_check = self._ends
        self._handle = self._loop.call_later(max(0.0, after_s), self._check)

    def restart(self, after_s: float) -> None:
        """Count from now on; does nothing where the alarm rang or was cancelled."""
        if self._handle is None:
            return
        ends = self._pulse.ran_s() + after_s
        if self._turns or ends < self._next_check:
            self._handle.cancel()
            self._begin(after_s)
            return
        self._after_s, self._ends, self._gaps = after_s, ends, self._pulse.gaps  # the next check reads the new end

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._pulse.release()

    def _check(self) -> None:
        now = self._pulse.ran_s()
        if self._pulse.gaps != self._gaps:
            self._gaps = self._pulse.gaps
            self._ends = max(self._ends, now + min(self._after_s, GRACE_S))
        if self._ends > now:
            self._turns, self._next_check = 0, self._ends
            self._handle = self._loop.call_later(self._ends - now, self._check)
        elif self._turns < TURNS:
            self._turns += 1
            self._handle = self._loop.call_soon(self._check)
        else:
            self.cancel()
            self._ring(*self._arguments)


@asynccontextmanager
async def patience(most_s: float | None) -> AsyncIterator[None]:
    """As `asyncio.timeout`, by the time in which the loop ran. Raises: TimeoutError."""
    async with asyncio.timeout(None) as timeout:
        if most_s is None:
            yield
            return
        alarm = Alarm(most_s, lambda: timeout.reschedule(asyncio.get_running_loop().time()))
        try:
            yield
        finally:
            alarm.cancel()
