"""The start of a gateway: it listens first, starts its engine second, and imports the protocols while that one starts.

/health answers all the time, and every other request waits for the end of the start. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gateway.access.keys import Keys
from gateway.asgi import App, Receive, Scope, Send
from gateway.http.heap import settle
from gateway.http.server import ServerError
from gateway.settings import Settings, SettingsError
from gateway.startup_app import is_early, startup_app

if TYPE_CHECKING:
    from gateway.context import Core

CORE = (
    "prometheus_client",
    "gateway.jobs.job",
    "gateway.store.sqlite",
    "gateway.forecast",
    "gateway.models.library",
    "gateway.lanes.engine",
    "gateway.service.service",
    "gateway.app",
)
"""The modules of the service, in steps of about equal length; the last one imports what the others have left."""
TURN_S = 0.001
"""Between two imports, for the requests that have come meanwhile."""

log = logging.getLogger("gateway.app")


class Gateway:
    """The ASGI application of a gateway, from its start to its end."""

    def __init__(self, settings: Settings, protocols: Sequence[str]) -> None:
        """`protocols` are the modules of the adapters. Raises: SettingsError for an unusable keys file."""
        self._settings = settings
        self._protocols = protocols
        self._keys = Keys.load(settings.access.keys_file)
        self._app: App = startup_app(settings, self._keys)
        self._core: Core | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start_ended = asyncio.Event()
        self._is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_early(scope):
            await self._start_ended.wait()
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Start; `begin_stop` ends this. Raises: SettingsError, GatewayError, ServerError."""
        starting = self._starting = asyncio.create_task(self._start(), name="start")
        if self._is_stopping:
            starting.cancel()
        try:
            await asyncio.wait({starting})
        finally:
            self._start_ended.set()
        if not starting.cancelled():
            starting.result()

    async def _start(self) -> None:
        await _imported(CORE)
        from gateway.app import build_app, build_core

        core = self._core = build_core(self._settings)
        print(core.greeting(), file=sys.stderr)
        await start_service(core)
        modules = await _imported(self._protocols)
        self._app = build_app(core, [module.ADAPTER for module in modules], self._keys)
        settle()
        log.info("started", extra={"model": core.library.default, "is_embedded": core.draws_embedded})

    def begin_stop(self) -> None:
        """End the start, streams, lanes and their children. Called before the server waits for its connections."""
        self._is_stopping = True
        if self._starting is not None:
            self._starting.cancel()
        if self._core is not None:
            self._core.service.begin_stop()

    async def stop(self) -> None:
        """Stop after the last request."""
        if self._core is not None:
            await self._core.service.stop()
            self._core.files.close()


async def start_service(core: Core) -> None:
    """Recover the jobs of an earlier process and start the engine.

    Raises: SettingsError for a place of files that refuses the gateway; ServerError, whose reason is in the log.
    """
    from gateway.errors import StorageFault
    from gateway.files.base import FilesRefused
    from gateway.service.shared_tickets import tickets_of
    from gateway.store.base import StoreCorrupt, StoreLocked

    try:
        await asyncio.to_thread(core.output.prepare)
        if core.shared_files is not None:
            await asyncio.to_thread(core.shared_files.previews.prepare)
        await core.service.start()
    except FilesRefused as error:
        raise SettingsError(f"files.url: {error}") from None
    except (StoreLocked, StoreCorrupt, StorageFault, OSError) as error:
        log.error("%s", error.strerror if isinstance(error, OSError) else error)
        raise ServerError("the gateway could not start; the reason is logged above") from None
    core.tickets = await tickets_of(core.service) or core.tickets


async def _imported(names: Sequence[str]) -> list[Any]:
    """Import modules one after the other, in the thread of the loop: no other thread ever sees half of one."""
    modules = []
    for name in names:
        modules.append(import_module(name))
        await asyncio.sleep(TURN_S)
    return modules
