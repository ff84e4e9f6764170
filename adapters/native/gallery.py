"""Endpoints of the gallery: finished images with how each was drawn, searched and removed; what a file says."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.images import own_image, read_upload
from adapters.native.request_schemas import ImagesQuery
from adapters.native.response_schemas import Deleted, Images, PictureShown, Provenance
from adapters.native.responses import image_id, image_url, iso, to_adjustments, type_of
from adapters.shared.body import query
from adapters.shared.context import core_of, owner_of, share_of
from gateway.errors import ImageGone, InvalidRequest
from gateway.images.codec import check_image
from gateway.images.hidden_text import hidden_texts, may_hide
from gateway.images.provenance import drawing_by, drawing_in, drawing_of
from gateway.jobs.drawing import Drawing
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job
from gateway.jobs.resolve_sampling import is_sampled
from gateway.models.library import Library

JOBS_AT_ONCE = 50


async def list_images(request: Request) -> Response:
    """GET images: List your finished pictures, the newest first, with how each was drawn; removed ones are left out."""
    params = query(ImagesQuery, request)
    core = core_of(request)
    rows: list[PictureShown] = []
    cursor = None if params.cursor is None else int(params.cursor)
    stored_jobs: frozenset[str] | None = None
    while True:
        jobs = await core.service.list_jobs(
            owner=owner_of(request),
            protocol=params.protocol,
            model=params.model,
            words=params.search.split(),
            has_images=True,
            among=stored_jobs,
            limit=JOBS_AT_ONCE,
            before=cursor,
        )
        images = [done for job in jobs for done in job.images]
        stored, damaged = await core.output.run(core.output.check, images)
        for job in jobs:
            cursor = job.number
            rows += [
                to_image(job, done, is_damaged=done.file in damaged)
                for done in reversed(job.images)
                if done.file in stored
            ]
            if len(rows) >= params.limit:
                break
        if len(rows) >= params.limit or len(jobs) < JOBS_AT_ONCE:
            break
        if stored_jobs is None and len(stored) < len(images):  # images were removed: from here on only jobs with files
            stored_jobs = await core.output.run(core.output.jobs_there)
    more = len(rows) >= params.limit
    answer: Images = {"images": rows, "next_cursor": str(cursor) if more else None}
    return JSONResponse(answer)


def to_image(job: Job, done: ImageDone, *, is_damaged: bool) -> PictureShown:
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
    """The fields of a drawing that are set, as JSON; a `Drawing` in the schema."""
    return None if drawing is None else drawing.model_dump(mode="json", exclude_defaults=True)


async def delete_image(request: Request) -> Response:
    """DELETE images/{id}: Remove a finished picture from the disk, for good; its job stays on record."""
    job, index = await own_image(request, request.path_params["image_id"])
    output, file = core_of(request).output, job.images[index].file
    if not await output.run(output.existing, [file]):
        raise ImageGone
    await output.run(output.remove, file)
    answer: Deleted = {"id": image_id(job.id, index), "deleted": True}
    return JSONResponse(answer)


async def read_drawing(request: Request) -> Response:
    """POST images/drawing: Read from a picture's file how it was drawn, here or by another program; it is not kept."""
    core, share, data = core_of(request), share_of(request), await read_upload(request)
    drawing = await core.files.read(share, drawing_in, data)
    if drawing is None and may_hide(data):
        with suppress(InvalidRequest):  # a file that cannot be decoded hides nothing
            checked = await check_image(data, core.decoder, "image", share)
            drawing = await core.files.run(share, _hidden_drawing, checked.png)
    answer: Provenance = {"drawing": to_drawing(drawing and with_own_name(drawing, core.library))}
    return JSONResponse(answer)


def with_own_name(drawing: Drawing, library: Library) -> Drawing:
    """The drawing with the name that its checkpoint has here: that of the file with its hash, else that of its name."""
    for title in (drawing.model_hash, drawing.model):
        if title and (spec := library.files.checkpoint(title)) is not None and is_sampled(spec):
            return drawing.model_copy(update={"model": spec.name})
    return drawing


def _hidden_drawing(png: bytes) -> Drawing | None:
    return drawing_by(hidden_texts(png))
