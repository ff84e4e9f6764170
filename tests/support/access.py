"""What tests of the guard share: one, and requests to it without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.access.guard import Guard
from gateway.errors import GatewayError
from gateway.settings import AccessSettings, ServerSettings, Settings

Headers = dict[str, str]


class Answer:
    """What came back of one request."""

    def __init__(self, messages: list[Any]) -> None:
        self.status: int = messages[0]["status"]
        self.fields: list[tuple[str, str]] = [(n.decode(), v.decode()) for n, v in messages[0]["headers"]]
        self.headers = dict(self.fields)
        self.text = b"".join(m.get("body", b"") for m in messages[1:]).decode()

    @property
    def code(self) -> str:
        return str(json.loads(self.text)["code"])


def a_guard(*, server: Headers | None = None, **access: Any) -> Guard:
    settings = Settings(
        server=ServerSettings.model_validate(server or {}), access=AccessSettings.model_validate(access)
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/boom":
            raise RuntimeError("CANARY")
        if scope["path"] == "/known":
            raise GatewayError("A known one.")
        body = (await receive()).get("body", b"")
        headers = [(b"vary", b"Accept"), (b"Content-Security-Policy", b"mine")] if scope["path"] == "/own" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"{scope['state']['owner']} {len(body)}".encode()})

    return Guard(
        app,
        settings,
        is_image_path=lambda path: path.startswith("/pictures/"),
        is_open_path=lambda path: path == "/open",
    )


def ask(
    guard: Guard,
    path: str = "/x",
    method: str = "GET",
    *,
    host: str | None = "localhost:7861",
    body: bytes = b"",
    client: str = "127.0.0.1",
    raw: list[tuple[bytes, bytes]] | None = None,
    **fields: str,
) -> Answer:
    headers = [] if host is None else [(b"host", host.encode())]
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()] + (raw or [])
    if body:
        headers.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": (client, 1), "state": {}}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return Answer(sent)


OPEN = a_guard()
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "DELETE")
