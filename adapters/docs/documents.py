"""The OpenAPI documents: of every protocol, and of one alone."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.context import core_of
from adapters.shared.pages import TaggedFile
from gateway import __version__
from gateway.context import Core
from gateway.http.openapi import document


async def get_openapi(request: Request) -> Response:
    """Fetch the description of every protocol, as OpenAPI 3.1."""
    return await _answer(request, None)


async def get_swagger(request: Request) -> Response:
    """Fetch the description of mflux-server's protocol, as OpenAPI 3.1."""
    return await _answer(request, "mflux-server")


async def _answer(request: Request, protocol: str | None) -> Response:
    core = core_of(request)
    files: dict[str | None, TaggedFile] = core.adapter_state.setdefault("docs", {})
    if protocol not in files:
        files[protocol] = await asyncio.to_thread(_describe, core, protocol)
    return files[protocol].answer(request)


def _describe(core: Core, protocol: str | None) -> TaggedFile:
    """The document of one protocol; None for all of them."""
    sections = [section for section in core.sections if protocol in (None, section.name)]
    described = document(sections, title="mflux-gateway", version=__version__)
    return TaggedFile.of(json.dumps(described).encode(), "application/json")
