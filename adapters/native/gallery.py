"""The finished pictures as a collection: listed with how they were drawn, searched, removed; and what a file says."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.answers import image_id, image_url, iso, to_adjustments, type_of
from adapters.native.jobs import service_of
from adapters.native.pictures import own_picture, sent_picture
from adapters.native.request import ImagesQuery
from adapters.native.shapes import Deleted, Images, PictureShown, Provenance
from adapters.shared.body import query
from adapters.shared.context import core_of, owner_of, share_of
from gateway.errors import InvalidRequest, PictureGone
from gateway.images.codec import checked_picture
from gateway.images.hidden_text import hidden_texts, may_hide
from gateway.images.output import Pictures
from gateway.images.provenance import Drawing, drawing_by, drawing_in, drawing_of
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job

JOBS_AT_ONCE = 50


async def images(request: Request) -> Response:
    """GET images: List your finished pictures, the newest first, with how each was drawn; removed ones are left out."""
    asked = query(ImagesQuery, request)
    service, pictures = service_of(request), core_of(request).pictures
    shown: list[PictureShown] = []
    cursor = None if asked.cursor is None else int(asked.cursor)
    there = await asyncio.to_thread(pictures.jobs_there)
    while True:
        page = await service.list_jobs(
            owner=owner_of(request),
            protocol=asked.protocol,
            model=asked.model,
            words=asked.search.split(),
            among=there,
            limit=JOBS_AT_ONCE,
            before=cursor,
        )
        kept, damaged = await asyncio.to_thread(_looked_at, pictures, [done for job in page for done in job.images])
        for job in page:
            cursor = job.number
            shown += [
                to_picture(job, done, is_damaged=done.file in damaged)
                for done in reversed(job.images)
                if done.file in kept
            ]
            if len(shown) >= asked.limit:
                break
        if len(shown) >= asked.limit or len(page) < JOBS_AT_ONCE:
            break
    more = len(shown) >= asked.limit
    answer: Images = {"images": shown, "next_cursor": str(cursor) if more else None}
    return JSONResponse(answer)


def _looked_at(pictures: Pictures, done: list[ImageDone]) -> tuple[set[str], set[str]]:
    """The files that are there, and those that are damaged. Blocks."""
    return pictures.there([one.file for one in done]), pictures.damaged(done)


def to_picture(job: Job, done: ImageDone, *, is_damaged: bool) -> PictureShown:
    at = next((event.at for event in job.events if event.fact == done), job.created_at)
    return {
        "id": image_id(job.id, done.image),
        "url": image_url(job.id, done.image),
        "job_id": job.id,
        "image": done.image,
        "type": type_of(job.plan),
        "protocol": job.protocol,
        "model": job.plan.model,
        "seed": done.seed,
        "width": done.width_px,
        "height": done.height_px,
        "seconds": round(done.seconds, 3),
        "created_at": iso(at),
        "damaged": is_damaged,
        "adjustments": to_adjustments(job.all_adjustments),
        "drawing": to_drawing(drawing_of(job.plan, done.seed)),
    }


def to_drawing(drawing: Drawing | None) -> Any:
    """What was said, and no more."""
    return None if drawing is None else drawing.model_dump(mode="json", exclude_defaults=True)


async def delete(request: Request) -> Response:
    """DELETE images/{id}: Remove a finished picture from the disk, for good; its job stays on record."""
    job, index = await own_picture(request, request.path_params["image_id"])
    pictures, file = core_of(request).pictures, job.images[index].file
    if not await asyncio.to_thread(pictures.there, [file]):
        raise PictureGone
    await asyncio.to_thread(pictures.remove, file)
    answer: Deleted = {"id": image_id(job.id, index), "deleted": True}
    return JSONResponse(answer)


async def drawing(request: Request) -> Response:
    """POST images/drawing: Read from a picture's file how it was drawn, here or by another program; it is not kept."""
    core, share, data = core_of(request), share_of(request), await sent_picture(request)
    found = await core.files.read(share, drawing_in, data)
    if found is None and may_hide(data):
        with suppress(InvalidRequest):  # what cannot be decoded hides nothing
            picture = await checked_picture(data, core.decoder, "image", share)
            found = await core.files.run(share, _hidden_drawing, picture.png)
    answer: Provenance = {"drawing": to_drawing(found)}
    return JSONResponse(answer)


def _hidden_drawing(png: bytes) -> Drawing | None:
    return drawing_by(hidden_texts(png))
