"""The files of the studio page. They hold nothing secret: the page asks for the key itself."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.pages import TaggedFile
from gateway.errors import NotFound

FOLDER = Path(__file__).parent / "studio"
PAGE = "page.html"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ASSETS = tuple(sorted(file.name for file in FOLDER.iterdir() if file.suffix in TYPES and file.name != PAGE))


async def get_page(request: Request) -> Response:
    """Open the studio: make pictures, watch every job, keep what came of them."""
    return await _answer(request, PAGE)


async def get_asset(request: Request) -> Response:
    """Fetch a part of the page."""
    name = request.path_params["name"]
    if name not in ASSETS:
        raise NotFound
    return await _answer(request, name)


async def _answer(request: Request, name: str) -> Response:
    file = await asyncio.to_thread(read_file, name)
    return file.answer(request)


@cache
def read_file(name: str) -> TaggedFile:
    return TaggedFile.of((FOLDER / name).read_bytes(), TYPES[Path(name).suffix])
