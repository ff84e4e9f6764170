"""A worker: the lanes of a gateway without HTTP. It listens nowhere; it connects to the job store and the files.

It drains on the first signal: the running jobs end within `worker.drain_s`, else they wait again, for another worker;
at a second signal they do at once. After a kill the leases of its jobs run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.clock import patience
from gateway import __version__
from gateway.first_of import first_of
from gateway.settings import Settings
from gateway.shutdown import Stopping

if TYPE_CHECKING:
    from gateway.context import Core

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP_S = 1.5
"""Seconds that putting jobs back may take, of the time until the process ends."""

log = logging.getLogger("gateway.worker")


class Worker:
    """A worker from its start to its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._budget = Stopping(STOP_S)

    def run(self) -> None:
        """Run until a signal to stop. Raises: SettingsError, GatewayError, ServerError."""
        factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
        with contextlib.suppress(ImportError):
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        from gateway.app import build_core
        from gateway.http.heap import settle
        from gateway.startup import start_service

        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        core = build_core(self._settings, "worker")
        print(greeting(core), file=sys.stderr)
        starting = asyncio.create_task(start_service(core))
        stopped = asyncio.create_task(self._signals.get())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                starting.result()
                settle()
                log.info("started", extra={"worker": self._settings.node_name})
            number = await stopped
            log.info("stopping", extra={"signal": number.name})
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                await self._drain(core)
        finally:
            stopped.cancel()
            self._budget.begin()
            await core.service.stop()
            core.files.close()
            await asyncio.gather(starting, return_exceptions=True)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._budget.has_begun:
            self._budget.hurry()
        self._signals.put_nowait(number)

    async def _drain(self, core: Core) -> None:
        """Let the running jobs end, until the time is up or another signal comes."""
        with contextlib.suppress(TimeoutError):
            async with patience(self._settings.worker.drain_s):
                await first_of(core.service.drain(), self._next_signal())

    async def _next_signal(self) -> None:
        await self._signals.get()


def greeting(core: Core) -> str:
    """The greeting for the operator at the start: what this worker runs."""
    lanes = ", ".join(core.settings.worker.lanes)
    return f"mflux-gateway {__version__} as worker {core.settings.node_name}, running {lanes}; it listens nowhere"
