"""Gzip of answers for clients that take it, as A1111's are."""

from __future__ import annotations

import asyncio
import zlib
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.table import Endpoint, Row

LEAST_BYTES = 1000
"""Source: A1111 1.10.1 webui.py: GZipMiddleware, minimum_size."""
THREAD_ABOVE_BYTES = 64 * 1024
HEADER_CHARS = 1024
"""Of Accept-Encoding that are looked at."""


def compressed(row: Row) -> Row:
    """The row, its answers compressed."""
    endpoint: Endpoint = row.endpoint

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        return await compress(request, await endpoint(request))

    return row._replace(endpoint=answer)


async def compress(request: Request, response: Response) -> Response:
    """The response, its body compressed where that is wanted and worth it."""
    body = bytes(response.body)
    if len(body) < LEAST_BYTES or not takes_gzip(request.headers.get("accept-encoding", "")):
        return response
    response.body = gzipped(body) if len(body) <= THREAD_ABOVE_BYTES else await asyncio.to_thread(gzipped, body)
    response.headers["content-encoding"] = "gzip"
    response.headers["content-length"] = str(len(response.body))
    response.headers["vary"] = "Accept-Encoding"
    return response


def takes_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not with a weight of 0."""
    for item in header[:HEADER_CHARS].lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def gzipped(body: bytes) -> bytes:
    """Base64 of pictures has 6 bits a byte and no repetitions: to look for some would only cost time."""
    packer = zlib.compressobj(1, wbits=31, strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(body) + packer.flush()
