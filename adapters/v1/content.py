"""Pictures by URL: where they lie, how long, and the parts and conditions HTTP lets a client ask for."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from email.utils import formatdate, parsedate_to_datetime
from typing import cast

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.shared.context import core_of
from adapters.shared.responses import adjustments_header
from adapters.v1.answers import CONTENT, MEDIA_TYPES
from adapters.v1.errors import request_id
from adapters.v1.pictures import from_png
from adapters.v1.values import PictureFormat
from gateway.access.origins import HostRule
from gateway.context import Core
from gateway.errors import JobDamaged, JobNotFound, NotFound
from gateway.images.output import UNKNOWN, Note, Stored
from gateway.jobs.resolve import Adjustment

PICTURE_NAME = re.compile(r"([0-9a-f]{32}\.[0-9]{1,9}\.[0-9]{1,4})\.(png|jpeg|webp)")
HEADER_CHARS = 1024
"""Of a list of tags, or a date, that are looked at."""
COMPRESSION = re.compile(r"100|[0-9]{1,2}")
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


def origin_of(request: Request) -> str:
    """What picture URLs begin with: the configured address, else the one a proxy in front was called by, else ours.

    A forwarded name counts only where the gateway itself would answer to it (access.hosts).
    """
    settings = core_of(request).settings
    if settings.server.public_url is not None:
        return settings.server.public_url
    url = request.base_url
    scheme, host = url.scheme, url.netloc
    forwarded = _first(request.headers.get("x-forwarded-host"))
    if forwarded and HostRule.of(settings).allows(forwarded):
        host = forwarded
    if (said := _first(request.headers.get("x-forwarded-proto")).lower()) in ("http", "https"):
        scheme = said
    return f"{scheme}://{host}"


def _first(header: str | None) -> str:
    return (header or "").partition(",")[0].strip()


async def content(request: Request) -> Response:
    """GET /v1/images/content/{name}: a picture by its unguessable name, without a key."""
    core = core_of(request)
    found = PICTURE_NAME.fullmatch(request.path_params["name"])
    stored, told = await _stored(core, f"{found[1]}.png") if found else (None, ())
    lives_s = core.settings.retention.url_hours * 3600
    age_s = 0.0 if stored is None else core.service.age_s(stored.made_at)
    if found is None or stored is None or age_s > lives_s:
        raise NotFound("There is no such picture, or its address has expired.")
    picture_format = cast(PictureFormat, found[2])
    asked = request.query_params.get("output_compression", "")
    compression = int(asked) if COMPRESSION.fullmatch(asked) else None
    picture = await asyncio.to_thread(from_png, stored.png, picture_format, compression)
    left_s = max(0, int(lives_s - age_s))
    headers = {
        "ETag": f'"{found[0]}.{compression}"',
        "Last-Modified": formatdate(stored.made_at, usegmt=True),
        "Cache-Control": f"private, max-age={min(3600, left_s)}",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        **adjustments_header(told),
        **request_id(),
    }
    return conditional(request.headers, picture, MEDIA_TYPES[picture_format], headers, stored.made_at)


async def _stored(core: Core, name: str) -> tuple[Stored | None, tuple[Adjustment, ...]]:
    """A picture, and what of its job was not done as asked. Raises: PictureDamaged, StorageFault."""
    note, told = UNKNOWN, tuple[Adjustment, ...]()
    with suppress(JobDamaged, JobNotFound):  # a picture outlives its job
        job = await core.service.get(name.partition(".")[0])
        note = next((Note.of(done) for done in job.images if done.file == name), UNKNOWN)
        told = job.all_adjustments
    return await asyncio.to_thread(core.pictures.stored, name, note), told


def conditional(asked: Headers, body: bytes, media_type: str, headers: dict[str, str], changed_at: float) -> Response:
    """The whole body, one part of it, or word that the client has it already. Source: RFC 9110, sections 13 and 14."""
    if unchanged(asked, headers["ETag"], changed_at):
        return Response(status_code=304, headers=headers)
    if "range" in asked and (
        "if-range" not in asked or asked["if-range"] in (headers["ETag"], headers["Last-Modified"])
    ):
        part = part_of(asked["range"], len(body))
        if part is not None and part.start >= len(body):
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(body)}"})
        if part is not None:
            span = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{len(body)}"}
            piece = body[part.start : part.stop]
            return Response(piece, status_code=206, media_type=media_type, headers={**headers, **span})
    return Response(body, media_type=media_type, headers=headers)


def unchanged(asked: Headers, etag: str, changed_at: float) -> bool:
    """Whether what the client holds is still right; If-None-Match goes before If-Modified-Since."""
    if (tags := asked.get("if-none-match")) is not None:
        held = {tag.strip().removeprefix("W/") for tag in tags[:HEADER_CHARS].split(",")}
        return etag in held or "*" in held
    if (since := asked.get("if-modified-since")) is not None:
        try:
            return int(changed_at) <= parsedate_to_datetime(since[:HEADER_CHARS]).timestamp()
        except (ValueError, OverflowError, IndexError, TypeError):
            return False
    return False


def part_of(header: str, length: int) -> range | None:
    """The one part that is asked for; None where the whole is sent instead: several parts, or no sense."""
    found = RANGE.fullmatch(header.strip())
    if found is None:
        return None
    if found[3] is not None:
        count = min(int(found[3]), length)
        return range(length - count, length) if count else range(length, length)
    first = int(found[1])
    last = min(int(found[2]) if found[2] else length - 1, length - 1)
    if found[2] and int(found[2]) < first:
        return None
    return range(first, last + 1) if first < length else range(length, length)


ROUTES = (Route(CONTENT + "{name}", content, methods=["GET"]),)
