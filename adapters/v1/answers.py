"""Finished jobs as OpenAI's answers and events. Pure: pictures and addresses come in as values."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.v1.errors import to_error
from adapters.v1.payloads import Drawing
from adapters.v1.values import PictureFormat
from engine.protocol import Generate
from gateway.errors import GatewayError
from gateway.http.error_body import bounded
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job
from gateway.jobs.resolve import Adjustment

CONTENT = "/v1/images/content/"
MEDIA_TYPES: dict[PictureFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""All zero: nothing here is counted or charged in tokens. Source: `Usage` of openai's ImagesResponse."""


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of the answer; what the client did not ask for is None."""

    done: ImageDone
    picture: bytes | None
    url: str | None


def size_of(width_px: int, height_px: int) -> str:
    return f"{width_px}x{height_px}"


def to_url(origin: str, done: ImageDone, asked: Drawing) -> str:
    """Where one picture can be fetched; `origin` is scheme and host, without a slash at the end."""
    stem = done.file.removesuffix(".png")
    query = "" if asked.output_compression is None else f"?output_compression={asked.output_compression}"
    return f"{origin}{CONTENT}{stem}.{asked.output_format}{query}"


def adjustments_of(job: Job, asked: Drawing, told: Sequence[Adjustment] = ()) -> list[Adjustment]:
    """What was not done as asked, by the core and by this prefix."""
    found = [*told, *job.all_adjustments]
    if asked.output_format == "png" and asked.output_compression not in (None, 100):
        reason = "PNG files lose nothing"
        found.append(Adjustment(param="output_compression", asked=asked.output_compression, used=100, reason=reason))
    return found


def to_response(job: Job, asked: Drawing, rows: Sequence[Row], told: Sequence[Adjustment] = ()) -> bytes:
    """The JSON answer. Large: call it in a thread; the pictures are spliced in, so that they are not there four times.

    Source: `ImagesResponse` of openai 3.52; every row has both keys, as Xinference's have. Ours: `seed` in a row,
    `job_id`, `adjustments`.
    """
    plan, first = job.plan, rows[0].done
    assert isinstance(plan, Generate)
    quality = asked.quality_word
    answer = {
        "created": int(job.finished_at or job.created_at),
        "background": "opaque",
        "output_format": asked.output_format,
        "quality": None if quality == "auto" else quality,
        "size": size_of(first.width_px, first.height_px),
        "data": None,
        "usage": USAGE,
        "safety_identifier": asked.effective_safety_identifier,
        "model": plan.model,
        "job_id": job.id,
        "adjustments": [one.model_dump() for one in adjustments_of(job, asked, told)],
    }
    head, _, tail = json.dumps(answer).encode().partition(b'"data": null')
    return b"".join([head, b'"data": [', *_data(rows), b"]", tail])


def _data(rows: Sequence[Row]) -> Iterator[bytes]:
    for at, row in enumerate(rows):
        yield b', {"b64_json": ' if at else b'{"b64_json": '
        if row.picture is None:
            yield b"null"
        else:
            yield b'"'
            yield base64.b64encode(row.picture)
            yield b'"'
        rest = {"url": row.url, "revised_prompt": None, "seed": row.done.seed}
        yield b", " + json.dumps(rest).encode()[1:]


# ---- the stream ------------------------------------------------------------------------------------


def partial_frame(asked: Drawing, size_px: tuple[int, int], image: int, index: int, at: float, raw: bytes) -> bytes:
    """Source: `ImageGenPartialImageEvent`, `ImageEditPartialImageEvent` of openai 3.52.

    Ours: `image_index`, the picture it is of.
    """
    return _frame(f"{asked.events}.partial_image", asked, size_px, image, at, raw, {"partial_image_index": index})


def completed_frame(
    job: Job, asked: Drawing, done: ImageDone, at: float, raw: bytes, told: Sequence[Adjustment] = ()
) -> bytes:
    """Source: `ImageGenCompletedEvent`, `ImageEditCompletedEvent` of openai 3.52.

    Ours: `image_index`, `seed`, `job_id`, `adjustments`.
    """
    size_px = (done.width_px, done.height_px)
    more = {
        "usage": USAGE,
        "safety_identifier": asked.effective_safety_identifier,
        "seed": done.seed,
        "job_id": job.id,
        "adjustments": [one.model_dump() for one in adjustments_of(job, asked, told)],
    }
    return _frame(f"{asked.events}.completed", asked, size_px, done.image, at, raw, more)


def error_frame(error: GatewayError) -> bytes:
    """The one form of failure for which openai's clients raise in the middle of a stream."""
    return b"data: " + json.dumps(bounded({"error": to_error(error)})).encode() + b"\n\n"


def _frame(
    event: str, asked: Drawing, size_px: tuple[int, int], image: int, at: float, raw: bytes, more: dict[str, Any]
) -> bytes:
    # No `id:` line, ever: after one, openai's client takes each keep-alive comment for an event and dies of it.
    data = {
        "type": event,
        "b64_json": base64.b64encode(raw).decode(),
        "created_at": int(at),
        "size": size_of(*size_px),
        "quality": asked.quality_word,
        "background": "opaque",
        "output_format": asked.output_format,
        "image_index": image,
        **more,
    }
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
