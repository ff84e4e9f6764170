"""The files of the studio page. They hold nothing secret: the page asks for the key itself."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import TypedDict

from adapters.shared.responses import error_response
from gateway.errors import GatewayError, NotFound
from gateway.http.openapi import Operation

FOLDER = Path(__file__).parent / "studio"
PAGE = "page.html"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ASSETS = tuple(sorted(file.name for file in FOLDER.iterdir() if file.suffix in TYPES and file.name != PAGE))
OPEN = ("/", *(f"/studio/{name}" for name in ASSETS))
KEPT = {"Cache-Control": "private, no-cache"}


class Plain(TypedDict):
    """What was wrong."""

    error: str
    code: str


def render_error(error: GatewayError) -> Response:
    body: Plain = {"error": error.message, "code": error.code}
    return error_response(body, error.status)


async def page(request: Request) -> Response:
    """Open the studio: make pictures, watch every job, keep what came of them."""
    return await _file(request, PAGE)


async def asset(request: Request) -> Response:
    """Fetch a part of the page."""
    name = request.path_params["name"]
    if name not in ASSETS:
        raise NotFound
    return await _file(request, name)


async def _file(request: Request, name: str) -> Response:
    content, tag = await asyncio.to_thread(content_of, name)
    headers = {**KEPT, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=TYPES[Path(name).suffix], headers=headers)


@cache
def content_of(name: str) -> tuple[bytes, str]:
    """A file and its ETag."""
    content = (FOLDER / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


ROUTES = (Route("/", page, methods=["GET"]), Route("/studio/{name}", asset, methods=["GET"]))
UNCHANGED = {304: "The client has it already."}
DESCRIBED = {
    "GET /": Operation(media=("text/html",), headers=("If-None-Match",), also=UNCHANGED),
    "GET /studio/{name}": Operation(media=tuple(TYPES.values())[1:], headers=("If-None-Match",), also=UNCHANGED),
}
