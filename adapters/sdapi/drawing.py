"""POST txt2img and img2img: parse, submit, wait, tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from adapters.base import attached, core_of, parse, png_of, raise_for
from adapters.sdapi.fit import fitted
from adapters.sdapi.kept import kept
from adapters.sdapi.payloads import Img2Img, Txt2Img
from adapters.sdapi.reply import Told, to_body
from adapters.sdapi.request import Translated, field_of, refuse, to_request
from adapters.sdapi.routing import origin_of, post
from engine.protocol import Generate
from gateway.errors import InvalidRequest
from gateway.images import base64_picture, checked_picture
from gateway.job import Job, State


async def txt2img(request: Request) -> Response:
    """POST txt2img: waits for its pictures."""
    return await _drawn(request, await parse(Txt2Img, request))


async def img2img(request: Request) -> Response:
    """POST img2img: as txt2img, from one start picture."""
    asked = await parse(Img2Img, request)
    refuse(asked)
    return await _drawn(request, asked, await _start_picture(request, asked))


async def _drawn(request: Request, asked: Txt2Img | Img2Img, init_image: str | None = None) -> Response:
    core = core_of(request)
    generation = core.settings.generation
    translated = to_request(
        asked,
        checkpoint=core.checkpoint,
        limits=generation.limits,
        previews=generation.previews,
        init_image=init_image,
    )
    with _client_names(asked):
        job = await core.service.submit(translated.request, origin_of(request))
    if asked.force_task_id:
        kept(core).tasks.put(job.owner, asked.force_task_id, job.id)
    return await _told(request, asked, translated, await attached(request, job))


async def _told(request: Request, asked: Txt2Img | Img2Img, translated: Translated, job: Job) -> Response:
    """The pictures of an ended job; an interrupted one answers with those it has. Raises: GenerationFailed."""
    if job.state is State.FAILED:
        raise_for(job)
    assert isinstance(job.plan, Generate)
    pngs = [await png_of(request, image.file) for image in job.images] if asked.send_images else []
    told = Told(asked, job, job.plan, translated.adjustments)
    return Response(await asyncio.to_thread(to_body, told, pngs), media_type="application/json")


async def _start_picture(request: Request, asked: Img2Img) -> str:
    """The name under which the start picture, at the size of the result, is stored. Raises: InvalidRequest."""
    core = core_of(request)
    data = await asyncio.to_thread(base64_picture, asked.init_images[0], "init_images")
    png = await checked_picture(data, core.decoder, "init_images")
    picture = await asyncio.to_thread(
        fitted,
        png,
        width_px=asked.width,
        height_px=asked.height,
        resize_mode=asked.resize_mode,
        limits=core.settings.generation.limits,
    )
    return await core.service.keep_input(picture)


@contextlib.contextmanager
def _client_names(asked: Txt2Img | Img2Img) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        error.param = field_of(asked, error.param) if error.param else None
        raise


ROUTES = (post("/txt2img", txt2img), post("/img2img", img2img))
IMAGE_PATHS = ("/txt2img", "/img2img")
