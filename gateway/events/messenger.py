"""Messenger: sends messages to the other processes of a fleet, and hands on theirs by their type."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from gateway.fleet.messages import Message, read_text, to_text
from gateway.store.shared import MESSAGE_BYTES, SharedStore

log = logging.getLogger("gateway.fleet")

M = TypeVar("M", bound=Message)


class Messenger:
    """Belongs to one event loop. Messages may be lost; nobody waits for them."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._handlers: dict[type[Message], Callable[[Any], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        store.listen(self._on_text)

    def on(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Call `handler` with every message of this type from another process."""
        self._handlers[cast(type[Message], kind)] = handler

    def send(self, message: Message) -> None:
        """Send a message in the background."""
        self.spawn(self.post(message))

    async def post(self, message: Message) -> None:
        """Send a message; a failure is only logged."""
        text = to_text(message)
        if len(text.encode()) > MESSAGE_BYTES:
            log.error("a message is too long to be sent", extra={"kind": message.kind})
            return
        try:
            await self._store.post(text)
        except Exception as error:
            log.debug("a message was not sent: %s", error, extra={"kind": message.kind})

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in the background until `close`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_text(self, text: str) -> None:
        message = read_text(text)
        if message is None:
            log.debug("a message of another version was ignored")
        elif (handler := self._handlers.get(type(message))) is not None:
            handler(message)
