"""Responses of every protocol: errors within bounds, the header X-Adjustments, the PNG of an image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.shared.context import core_of
from engine.protocol import Failed
from gateway.errors import ClientGone, GatewayError, GenerationFailed, ImageGone, InvalidRequest, clip
from gateway.http.error_body import bounded
from gateway.images.output import Note, OutputFolder
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job, State
from gateway.jobs.resolve import Adjustment

ADJUSTMENTS_CHARS = 2048
"""Characters of the header: nginx accepts 4 KiB of response headers in all."""


def error_response(body: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An error as JSON, of 1 KiB at most: the errors of every protocol are made here (S-13)."""
    return JSONResponse(bounded(body), status_code=status, headers=headers)


def error_of(failed: Failed) -> GatewayError:
    """The error of a failed job: InvalidRequest where the client's input was at fault, else GenerationFailed."""
    if failed.code == "bad_input":
        return InvalidRequest(failed.message, code=failed.code)
    return GenerationFailed(failed.message, code=failed.code)


def raise_for(job: Job) -> None:
    """Raises: GenerationFailed or InvalidRequest for a failed job, ClientGone for one cancelled without images."""
    if job.failure is not None:
        raise error_of(job.failure)
    if job.state is State.CANCELLED and not job.images:
        raise ClientGone


async def png_of(request: Request, done: ImageDone) -> bytes:
    """The stored PNG of a finished image. Raises: as stored_png."""
    output = core_of(request).output
    return await output.run(stored_png, output, done)


def stored_png(output: OutputFolder, done: ImageDone) -> bytes:
    """The stored PNG of a finished image. Blocks: call it by `output.run`. Raises: ImageGone, ImageDamaged,
    StorageFault.
    """
    data = output.read(done.file, Note.of(done))
    if data is None:
        raise ImageGone
    return data


def adjustments_header(adjustments: Sequence[Adjustment]) -> dict[str, str]:
    """The header X-Adjustments: every adjustment as JSON in ASCII; no header where there is none.

    Where that is longer than proxies accept, the header has only the names of the parameters.
    """
    rows = [one.model_dump() for one in adjustments]
    text = json.dumps(rows, separators=(",", ":"))
    if len(text) > ADJUSTMENTS_CHARS:
        rows = [{"param": name} for name in dict.fromkeys(clip(one.param) for one in adjustments)]
        while len(text := json.dumps(rows, separators=(",", ":"))) > ADJUSTMENTS_CHARS:
            rows.pop()
    return {"X-Adjustments": text} if rows else {}
