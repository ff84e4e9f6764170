"""Gzip compression of answers for clients that accept it, as in A1111."""

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
"""Characters of Accept-Encoding that are read."""


def compressed(row: Row) -> Row:
    """The row with compressed answers."""
    endpoint: Endpoint = row.endpoint

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        return await compress(request, await endpoint(request))

    return row._replace(endpoint=answer)


async def compress(request: Request, response: Response) -> Response:
    """The response, with a compressed body where the client accepts gzip and the body is long enough."""
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
    """The body as gzip, by Huffman codes alone: base64 of images has 6 bits a byte and no repetitions to search for."""
    packer = zlib.compressobj(1, wbits=31, strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(body) + packer.flush()
