"""The documents and the page. Swagger UI comes from a package: nothing is fetched from elsewhere, nor is any of it run.

Its package names Flask, which is neither imported nor needed here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from adapters.shared.context import core_of
from adapters.shared.responses import error_response
from gateway import __version__
from gateway.context import Core
from gateway.errors import GatewayError, NotFound, NotInstalled
from gateway.http.openapi import Operation, document

HERE = Path(__file__).parent
SWAGGER_UI = "flask_swagger_ui"
ASSETS = {
    "page.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
PAGES = ("/docs", "/swagger")
SPECS: dict[str, str | None] = {
    "/openapi.json": None,
    "/swagger.json": "mflux-server",
    "/api/swagger.json": "mflux-server",
}
"""Where a description lies, and of which protocol alone it is: mflux-server had its own there."""
KEPT_FOR = {"Cache-Control": "private, no-cache"}


class Plain(TypedDict):
    """What was wrong."""

    error: str
    code: str


def render_error(error: GatewayError) -> Response:
    body: Plain = {"error": error.message, "code": error.code}
    return error_response(body, error.status)


async def page(_: Request) -> Response:
    """Read what every protocol takes and answers, and try it."""
    return Response(await asyncio.to_thread((HERE / "page.html").read_bytes), media_type="text/html")


async def asset(request: Request) -> Response:
    """Fetch a part of the page."""
    name = request.path_params["name"]
    if name not in ASSETS:
        raise NotFound
    return tagged(request, await asyncio.to_thread(asset_of, name), ASSETS[name])


@cache
def asset_of(name: str) -> bytes:
    """Raises: NotInstalled."""
    own = HERE / name
    if own.exists():
        return own.read_bytes()
    found = find_spec(SWAGGER_UI)  # finds it without running it
    if found is None or found.origin is None:
        raise NotInstalled("The page's parts are not installed; /openapi.json says the same.")
    return (Path(found.origin).parent / "dist" / name).read_bytes()


async def openapi(request: Request) -> Response:
    """Fetch the description of every protocol, as OpenAPI 3.1."""
    return await _description(request)


async def swagger(request: Request) -> Response:
    """Fetch the description of mflux-server's protocol, as OpenAPI 3.1."""
    return await _description(request)


async def _description(request: Request) -> Response:
    core, only = core_of(request), SPECS[request.url.path]
    kept = core.kept.setdefault("docs", {})
    if only not in kept:
        kept[only] = await asyncio.to_thread(description_of, core, only)
    return tagged(request, kept[only], "application/json")


def description_of(core: Core, only: str | None) -> bytes:
    sections = [section for section in core.sections if only in (None, section.name)]
    return json.dumps(document(sections, title="mflux-gateway", version=__version__)).encode()


def tagged(request: Request, content: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**KEPT_FOR, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _table() -> dict[str, tuple[Callable[[Request], Any], Operation]]:
    unchanged = {304: "The client has it already."}
    known = ("If-None-Match",)
    table: dict[str, tuple[Callable[[Request], Any], Operation]] = {}
    for path in PAGES:
        table[path] = (page, Operation(media=("text/html",)))
    table["/docs/assets/{name}"] = (
        asset,
        Operation(media=tuple(dict.fromkeys(ASSETS.values())), headers=known, also=unchanged),
    )
    for path, only in SPECS.items():
        serves = openapi if only is None else swagger
        table[path] = (serves, Operation(answer=dict[str, Any], headers=known, also=unchanged))
    return table


ROUTES = tuple(Route(path, endpoint, methods=["GET"]) for path, (endpoint, _) in _table().items())
DESCRIBED = {f"GET {path}": operation for path, (_, operation) in _table().items()}
