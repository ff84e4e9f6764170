"""Images by URL: where they lie, how long, and the parts and conditions HTTP lets a client ask for."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from email.utils import formatdate, parsedate_to_datetime
from typing import cast

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.context import core_of
from adapters.shared.responses import adjustments_header
from adapters.v1.image_formats import MEDIA_TYPES, from_png
from adapters.v1.responses import request_id
from adapters.v1.values import ImageFormat
from gateway.access.origins import HostRule
from gateway.context import Core
from gateway.errors import JobDamaged, JobNotFound, NotFound
from gateway.images.output import UNKNOWN, Note, Stored
from gateway.jobs.resolve import Adjustment

IMAGE_NAME = re.compile(r"([0-9a-f]{32}\.[0-9]{1,9}\.[0-9]{1,4})\.(png|jpeg|webp)")
HEADER_CHARS = 1024
"""Characters of a header with tags or a date that are read."""
COMPRESSION = re.compile(r"100|[0-9]{1,2}")
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


def origin_of(request: Request) -> str:
    """The beginning of image URLs: the configured address, else the one a proxy in front was called by, else ours.

    A forwarded name counts only where the gateway itself would answer to it (access.hosts).
    """
    settings = core_of(request).settings
    if settings.server.public_url is not None:
        return settings.server.public_url
    url = request.base_url
    scheme, host = url.scheme, url.netloc
    forwarded_host = _first(request.headers.get("x-forwarded-host"))
    if forwarded_host and HostRule.of(settings).allows(forwarded_host):
        host = forwarded_host
    if (forwarded_proto := _first(request.headers.get("x-forwarded-proto")).lower()) in ("http", "https"):
        scheme = forwarded_proto
    return f"{scheme}://{host}"


def _first(header: str | None) -> str:
    return (header or "").partition(",")[0].strip()


async def get_content(request: Request) -> Response:
    """GET /v1/images/content/{name}: a picture by its unguessable name, without a key."""
    core = core_of(request)
    name = IMAGE_NAME.fullmatch(request.path_params["name"])
    stored, adjustments = await _find(core, f"{name[1]}.png") if name else (None, ())
    lifetime_s = core.settings.retention.url_hours * 3600
    age_s = 0.0 if stored is None else core.service.age_s(stored.made_at)
    if name is None or stored is None or age_s > lifetime_s:
        raise NotFound("There is no such picture, or its address has expired.")
    image_format = cast(ImageFormat, name[2])
    output_compression = request.query_params.get("output_compression", "")
    compression = int(output_compression) if COMPRESSION.fullmatch(output_compression) else None
    image = await asyncio.to_thread(from_png, stored.png, image_format, compression)
    left_s = max(0, int(lifetime_s - age_s))
    headers = {
        "ETag": f'"{name[0]}.{compression}"',
        "Last-Modified": formatdate(stored.made_at, usegmt=True),
        "Cache-Control": f"private, max-age={min(3600, left_s)}",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        **adjustments_header(adjustments),
        **request_id(),
    }
    return conditional(request.headers, image, MEDIA_TYPES[image_format], headers, stored.made_at)


async def _find(core: Core, name: str) -> tuple[Stored | None, tuple[Adjustment, ...]]:
    """An image, and what of its job was not done as asked. Raises: ImageDamaged, StorageFault."""
    note, adjustments = UNKNOWN, tuple[Adjustment, ...]()
    with suppress(JobDamaged, JobNotFound):  # an image outlives its job
        job = await core.service.get(name.partition(".")[0])
        note = next((Note.of(image) for image in job.images if image.file == name), UNKNOWN)
        adjustments = job.all_adjustments
    return await core.output.run(core.output.stored, name, note), adjustments


def conditional(
    request_headers: Headers, body: bytes, media_type: str, headers: dict[str, str], changed_at: float
) -> Response:
    """The whole body, one part of it, or 304 where the client has it already; `changed_at` is in Unix seconds.

    Source: RFC 9110, sections 13 and 14.
    """
    if is_current(request_headers, headers["ETag"], changed_at):
        return Response(status_code=304, headers=headers)
    if "range" in request_headers and (
        "if-range" not in request_headers or request_headers["if-range"] in (headers["ETag"], headers["Last-Modified"])
    ):
        part = part_of(request_headers["range"], len(body))
        if part is not None and part.start >= len(body):
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(body)}"})
        if part is not None:
            span = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{len(body)}"}
            piece = body[part.start : part.stop]
            return Response(piece, status_code=206, media_type=media_type, headers={**headers, **span})
    return Response(body, media_type=media_type, headers=headers)


def is_current(request_headers: Headers, etag: str, changed_at: float) -> bool:
    """Whether the client's copy is still right; If-None-Match goes before If-Modified-Since."""
    if (if_none_match := request_headers.get("if-none-match")) is not None:
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match[:HEADER_CHARS].split(",")}
        return etag in tags or "*" in tags
    if (since := request_headers.get("if-modified-since")) is not None:
        try:
            return int(changed_at) <= parsedate_to_datetime(since[:HEADER_CHARS]).timestamp()
        except (ValueError, OverflowError, IndexError, TypeError):
            return False
    return False


def part_of(header: str, length: int) -> range | None:
    """The one part that is asked for; None where the whole is sent instead: for several parts, or for nonsense."""
    match = RANGE.fullmatch(header.strip())
    if match is None:
        return None
    if match[3] is not None:
        count = min(int(match[3]), length)
        return range(length - count, length) if count else range(length, length)
    first = int(match[1])
    last = min(int(match[2]) if match[2] else length - 1, length - 1)
    if match[2] and int(match[2]) < first:
        return None
    return range(first, last + 1) if first < length else range(length, length)
