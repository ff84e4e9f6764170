"""The page and its parts. Swagger UI comes from a package, whose files are read and never run.

The package depends on Flask, which is neither imported nor needed here.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.pages import TaggedFile
from gateway.errors import NotFound, NotInstalled

FOLDER = Path(__file__).parent
SWAGGER_UI = "flask_swagger_ui"
ASSETS = {
    "page.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


async def get_page(_: Request) -> Response:
    """Read what every protocol takes and answers, and try it."""
    return Response(await asyncio.to_thread((FOLDER / "page.html").read_bytes), media_type="text/html")


async def get_asset(request: Request) -> Response:
    """Fetch a part of the page."""
    name = request.path_params["name"]
    if name not in ASSETS:
        raise NotFound
    file = await asyncio.to_thread(read_asset, name)
    return file.answer(request)


@cache
def read_asset(name: str) -> TaggedFile:
    """Raises: NotInstalled."""
    own = FOLDER / name
    if own.exists():
        return TaggedFile.of(own.read_bytes(), ASSETS[name])
    package = find_spec(SWAGGER_UI)  # finds it without running it
    if package is None or package.origin is None:
        raise NotInstalled("The page's parts are not installed; /openapi.json says the same.")
    return TaggedFile.of((Path(package.origin).parent / "dist" / name).read_bytes(), ASSETS[name])
