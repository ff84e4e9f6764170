"""The application while the gateway starts: /health behind the guard. Knows no part of a running gateway."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from gateway import __version__
from gateway.access.guard import Guard
from gateway.access.keys import Keys
from gateway.asgi import App, Receive, Scope, Send
from gateway.errors import GatewayError, Unavailable
from gateway.http.error_body import bounded
from gateway.settings import Settings

METHODS = ("GET", "HEAD")


async def live(request: Request) -> Response:
    """The loop answers."""
    return JSONResponse({"status": "alive"})


async def not_yet_ready(request: Request) -> Response:
    """The answer of /health/ready until the gateway has started: what is not known yet is null."""
    body: dict[str, Any] = {
        "status": "not_ready",
        "engine": "starting",
        "reason": "The gateway is starting.",
        "lanes": {},
        "model": None,
        "embedded": None,
        "version": __version__,
    }
    return JSONResponse(body, status_code=503)


EARLY = (Route("/health/live", live), Route("/health/ready", not_yet_ready))


def is_early(scope: Scope) -> bool:
    """Whether a request is answered while the gateway starts."""
    return scope["method"] in METHODS and any(scope["path"] == route.path for route in EARLY)


def startup_app(settings: Settings, keys: Keys) -> App:
    """The application for early requests, and for all others if the gateway is stopped before it has started."""
    errors = {HTTPException: _never}
    guarded = Guard(
        ExceptionMiddleware(Router(EARLY, redirect_slashes=False), handlers=errors),
        settings,
        render=lambda path, error: plain_error(error),
        is_open_path=lambda path: path == "/health/live",
        keys=keys,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = guarded  # makes starlette raise its 404 and 405 instead of answering in plain text
        await guarded(scope, receive, send)

    return app


def plain_error(error: GatewayError) -> Response:
    """An error on a path of no protocol."""
    body = bounded({"error": {"code": error.code, "message": error.message}})
    return JSONResponse(body, status_code=error.status)


def _never(request: Request, error: Exception) -> Response:
    raise Unavailable("The gateway is stopping.", retry_after_s=5)
