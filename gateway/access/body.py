"""Bounds for a request body while it arrives: size, rate and time (S-11). Knows only bytes and clocks.

Received bytes are counted, since Content-Length may be missing or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.clock import Pulse, patience
from gateway.asgi import Message, Receive
from gateway.errors import BodyTooLarge, BodyTooSlow, GatewayError

DRAIN_S = 2.0
DRAIN_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """At most `most_bytes`, all within `deadline_s`, and at least `bytes_per_s` over every `window_s` of waiting."""

    most_bytes: int
    deadline_s: float
    window_s: float
    bytes_per_s: int

    def too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self.most_bytes} bytes.")


class GuardedBody:
    """ASGI `receive` that raises an error when the body exceeds its bounds; `error` stays set from then on.

    `arrived` is called with the bytes received so far, and may refuse them by a GatewayError.
    Only time spent waiting for the client counts, not time in which the app does not read.
    """

    def __init__(
        self, receive: Receive, bounds: BodyBounds, arrived: Callable[[int], None] = lambda total: None
    ) -> None:
        self._receive, self._bounds, self._arrived = receive, bounds, arrived
        self._got_bytes = 0
        self._waited_s = 0.0
        self._window_bytes = 0
        self._window_waited_s = 0.0
        self.whole = False
        self.disconnected = False
        self.error: GatewayError | None = None

    async def __call__(self) -> Message:
        """The next message. Raises: BodyTooLarge, BodyTooSlow; those of `arrived`."""
        if self.error is not None:
            raise self.error
        if self.whole or self.disconnected:
            return self._note(await self._receive())
        message = await self._within_time()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._got_bytes += size
            self._window_bytes += size
            if self._got_bytes > self._bounds.most_bytes:
                raise self._fail(self._bounds.too_large())
            try:
                self._arrived(self._got_bytes)
            except GatewayError as error:
                raise self._fail(error) from None
        return self._note(message)

    async def drain(self) -> None:
        """Read the rest of the body for a while, so that the client reads our response and gets no reset."""
        got = self._got_bytes
        try:
            async with patience(DRAIN_S):
                while not (self.whole or self.disconnected) and got < DRAIN_BYTES:
                    message = self._note(await self._receive())
                    got += len(message.get("body", b""))
        except TimeoutError:
            pass

    async def _within_time(self) -> Message:
        pulse, bounds = Pulse.here(), self._bounds
        allowed = min(bounds.deadline_s - self._waited_s, bounds.window_s - self._window_waited_s)
        began = pulse.ran_s()
        try:
            async with patience(max(0.0, allowed)):
                return await self._receive()
        except TimeoutError:
            if self._waited_s + pulse.ran_s() - began >= bounds.deadline_s:
                raise self._fail(BodyTooSlow(f"The body took longer than {bounds.deadline_s:g} seconds.")) from None
            if self._window_bytes < bounds.bytes_per_s * bounds.window_s:
                raise self._fail(
                    BodyTooSlow(f"The body came slower than {bounds.bytes_per_s} bytes a second.")
                ) from None
        finally:
            passed = pulse.ran_s() - began
            self._waited_s += passed
            self._window_waited_s += passed
            if self._window_waited_s >= bounds.window_s:
                self._window_bytes, self._window_waited_s = 0, 0.0
        return await self._within_time()

    def _note(self, message: Message) -> Message:
        if message["type"] == "http.disconnect":
            self.disconnected = True
        elif not message.get("more_body", False):
            self.whole = True
        return message

    def _fail(self, error: GatewayError) -> GatewayError:
        self.error = error
        return error
