"""The answers and events of /v1, from ended jobs. Pure: the bytes of images and their addresses are arguments."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from adapters.v1.request_schemas import ImageBody, OcrBody
from adapters.v1.response_schemas import JsonObject, OcrAnswer, Picture, Pictures, Shown
from engine.protocol import Generate
from gateway.jobs.facts import ImageDone, PageRead
from gateway.jobs.job import Job
from gateway.jobs.plans import Ocr
from gateway.jobs.resolve import Adjustment

CONTENT = "/v1/images/content/"
USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""All zero: nothing here is counted or charged in tokens. Source: `Usage` of openai's ImagesResponse."""


def request_id(job_id: str | None = None) -> dict[str, str]:
    """The header that every answer has: the job's id where there is a job."""
    return {"x-request-id": job_id or f"req_{secrets.token_hex(16)}"}


def json_response(body: Mapping[str, object] | Sequence[object], job_id: str | None = None) -> Response:
    return JSONResponse(body, headers=request_id(job_id))


# ---- images ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of the answer; None stands for what the client did not ask for."""

    image: ImageDone
    data: bytes | None
    url: str | None


def to_url(origin: str, image: ImageDone, body: ImageBody) -> str:
    """The address of one image; `origin` is scheme and host, without a slash at the end."""
    stem = image.file.removesuffix(".png")
    query = "" if body.output_compression is None else f"?output_compression={body.output_compression}"
    return f"{origin}{CONTENT}{stem}.{body.output_format}{query}"


def adjustments_of(job: Job, body: ImageBody, adjustments: Sequence[Adjustment] = ()) -> list[Adjustment]:
    """The adjustments of the core after those of /v1."""
    rows = [*adjustments, *job.all_adjustments]
    if body.output_format == "png" and body.output_compression not in (None, 100):
        reason = "PNG files lose nothing"
        rows.append(Adjustment(param="output_compression", asked=body.output_compression, used=100, reason=reason))
    return rows


def to_response(job: Job, body: ImageBody, rows: Sequence[ImageRow], adjustments: Sequence[Adjustment] = ()) -> bytes:
    """The JSON answer. Takes long: call it in a thread. Images are spliced in: json.dumps would copy them four times.

    Source: `ImagesResponse` of openai 3.52; every row has both keys, as Xinference's have. Ours: `seed` in a row,
    `job_id`, `adjustments`.
    """
    plan, first = job.plan, rows[0].image
    assert isinstance(plan, Generate)
    quality = body.quality_word
    answer: Pictures = {
        "created": int(job.finished_at or job.created_at),
        "background": "opaque",
        "output_format": body.output_format,
        "quality": None if quality == "auto" else quality,
        "size": _size_text(first.width_px, first.height_px),
        "data": [],
        "usage": USAGE,
        "safety_identifier": body.effective_safety_identifier,
        "model": plan.model,
        "job_id": job.id,
        "adjustments": _to_rows(adjustments_of(job, body, adjustments)),
    }
    head, _, tail = json.dumps(answer).encode().partition(b'"data": []')
    return b"".join([head, b'"data": [', *_data(rows), b"]", tail])


def _data(rows: Sequence[ImageRow]) -> Iterator[bytes]:
    for at, row in enumerate(rows):
        fields: Picture = {"b64_json": None, "url": row.url, "revised_prompt": None, "seed": row.image.seed}
        head, null, tail = json.dumps(fields).encode().partition(b"null")
        yield b", " + head if at else head
        if row.data is None:
            yield null
        else:
            yield b'"'
            yield base64.b64encode(row.data)
            yield b'"'
        yield tail


def _size_text(width_px: int, height_px: int) -> str:
    return f"{width_px}x{height_px}"


def _to_rows(adjustments: Sequence[Adjustment]) -> list[JsonObject]:
    return [one.model_dump() for one in adjustments]


# ---- the stream ------------------------------------------------------------------------------------


def partial_frame(body: ImageBody, size_px: tuple[int, int], image: int, index: int, at: float, data: bytes) -> bytes:
    """The event of a preview: number `index` of the image number `image`, at the Unix time `at` in seconds.

    Source: `ImageGenPartialImageEvent`, `ImageEditPartialImageEvent` of openai 3.52. Ours: `image_index`.
    """
    shown = _to_shown("partial_image", body, size_px, image, at, data)
    return _to_frame({**shown, "partial_image_index": index})


def completed_frame(
    job: Job, body: ImageBody, image: ImageDone, at: float, data: bytes, adjustments: Sequence[Adjustment] = ()
) -> bytes:
    """The event of a finished image, at the Unix time `at` in seconds.

    Source: `ImageGenCompletedEvent`, `ImageEditCompletedEvent` of openai 3.52. Ours: `image_index`, `seed`, `job_id`,
    `adjustments`.
    """
    shown = _to_shown("completed", body, (image.width_px, image.height_px), image.image, at, data)
    return _to_frame(
        {
            **shown,
            "usage": USAGE,
            "safety_identifier": body.effective_safety_identifier,
            "seed": image.seed,
            "job_id": job.id,
            "adjustments": _to_rows(adjustments_of(job, body, adjustments)),
        }
    )


def _to_shown(event: str, body: ImageBody, size_px: tuple[int, int], image: int, at: float, data: bytes) -> Shown:
    return {
        "type": f"{body.events}.{event}",
        "b64_json": base64.b64encode(data).decode(),
        "created_at": int(at),
        "size": _size_text(*size_px),
        "quality": body.quality_word,
        "background": "opaque",
        "output_format": body.output_format,
        "image_index": image,
    }


def _to_frame(shown: Shown) -> bytes:
    # No `id:` line: after one, openai's client takes each keep-alive comment for an event and fails.
    return f"event: {shown['type']}\ndata: {json.dumps(shown)}\n\n".encode()


# ---- OCR -------------------------------------------------------------------------------------------


def to_ocr_answer(job: Job, body: OcrBody) -> OcrAnswer:
    """Source: Xinference's answer, a JSON string; structured: `[{box, txt, score}]`, for a PDF one such list a page."""
    plan = job.plan
    assert isinstance(plan, Ocr)
    if not body.is_structured:
        return job.text
    if not plan.pages:
        return _to_lines(job.pages[0])
    return {"pages": [{"page": plan.pages[page.page], "result": _to_lines(page)} for page in job.pages]}


def _to_lines(page: PageRead) -> list[JsonObject]:
    """Source: `RapidOCROutput.to_json` of rapidocr 3.10."""
    return [{"box": line.box, "txt": line.text, "score": line.score} for line in page.lines]
