"""The available upscalers, by name and by number."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi.errors import no_such_upscaler
from adapters.sdapi.lists import MODEL_UPSCALERS, STAND_IN, UPSCALERS, stands_in_for, upscaler_row
from adapters.shared.context import core_of
from gateway.models.library import Library

PLAIN = tuple(row["name"] for row in UPSCALERS)


def upscalers_here(library: Library) -> list[str]:
    """All upscalers in the order of their numbers: the filters, and SeedVR2 where it is on disk. Reads the disk."""
    return [*PLAIN, *(name for name, model in MODEL_UPSCALERS.items() if library.on_disk(library.find(model)))]


def used_upscaler(name: str) -> str:
    """The upscaler that is used for a name: itself, or Lanczos. Raises: AsA1111."""
    if name in PLAIN or name in MODEL_UPSCALERS:
        return name
    if stands_in_for(name):
        return STAND_IN
    raise no_such_upscaler(name)


async def upscalers(request: Request) -> Response:
    """The filters, and SeedVR2 where its weights are here."""
    names = await asyncio.to_thread(upscalers_here, core_of(request).library)
    return JSONResponse([upscaler_row(name) for name in names])
