"""The header X-Process-Time: seconds until a response starts, errors too. Source: A1111 1.10.1 api_middleware."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


def timed(app: ASGIApp) -> ASGIApp:
    """`app` with the header X-Process-Time in its responses."""

    async def timing(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def send_timed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                took = f"{time.perf_counter() - began:.4f}".encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"x-process-time", took)]}
            await send(message)

        await app(scope, receive, send_timed)

    return timing
