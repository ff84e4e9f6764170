"""The routes of /api/v1, with what each takes and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.native import gallery, jobs, loras, models, pictures, queue, stream, system, tickets, upscale
from adapters.native.answers import PREFIX
from adapters.native.events import ALL_EVENTS, EVENTS
from adapters.native.model_shapes import Cleared, LoraDetail, Loras, Models, ModelStatus, Removed, Unloaded
from adapters.native.request import (
    EventsQuery,
    GenerateBody,
    ImagesQuery,
    JobQuery,
    JobsQuery,
    LoadQuery,
    MoveBody,
    PictureQuery,
    QueueQuery,
    StreamQuery,
    TicketBody,
    UploadBody,
    UploadForm,
)
from adapters.native.shapes import (
    Deleted,
    Ended,
    Findings,
    Health,
    Images,
    Jobs,
    JobShown,
    Paused,
    Provenance,
    Queue,
    Stats,
    Submitted,
    System,
    Ticket,
    Uploaded,
)
from gateway.http.openapi import EVENTS as EVENT_STREAM
from gateway.http.openapi import Operation

Endpoint = Callable[[Request], Awaitable[Response]]
PICTURES = ("image/png", "image/jpeg", "image/webp")
UNSTORED = {202: "It has stopped, and the disk does not take that yet; a restart before it does runs it again."}
UNCHANGED = {304: "The client has it already."}
PICTURE = Operation(query=PictureQuery, headers=("If-None-Match",), media=PICTURES, also=UNCHANGED)
RESUMED = ("Last-Event-ID",)
ONCE = ("Idempotency-Key",)
CLIENT = ("X-Client-Id",)

TABLE: tuple[tuple[str, str, Endpoint, Operation], ...] = (
    ("POST", "/generate", jobs.generate, Operation(body=GenerateBody, answer=Submitted, headers=ONCE)),
    (
        "POST",
        "/upscale",
        upscale.upscale,
        Operation(body=upscale.UpscaleBody, form=upscale.UpscaleForm, answer=Submitted, headers=ONCE),
    ),
    ("GET", "/jobs", jobs.jobs, Operation(query=JobsQuery, answer=Jobs)),
    ("GET", "/jobs/{job_id}", jobs.job, Operation(query=JobQuery, answer=JobShown)),
    ("DELETE", "/jobs/{job_id}", jobs.cancel, Operation(answer=Ended, also=UNSTORED)),
    (
        "GET",
        "/jobs/{job_id}/stream",
        stream.stream,
        Operation(
            query=StreamQuery,
            headers=RESUMED,
            media=(EVENT_STREAM,),
            also={204: "It was told to its end."},
            events=EVENTS,
        ),
    ),
    ("POST", "/jobs/{job_id}/retry", jobs.retry, Operation(answer=JobShown, headers=ONCE)),
    ("POST", "/jobs/{job_id}/move", jobs.move, Operation(body=MoveBody, answer=JobShown)),
    ("GET", "/jobs/{job_id}/images/{index:int}", pictures.job_image, PICTURE),
    (
        "GET",
        "/jobs/{job_id}/preview",
        pictures.preview,
        Operation(headers=("If-None-Match",), media=("image/jpeg",), also={204: "There is none now.", **UNCHANGED}),
    ),
    ("GET", "/images", gallery.images, Operation(query=ImagesQuery, answer=Images)),
    (
        "POST",
        "/images/drawing",
        gallery.drawing,
        Operation(body=UploadBody, form=UploadForm, answer=Provenance, headers=CLIENT),
    ),
    ("GET", "/images/{image_id}", pictures.image, PICTURE),
    ("DELETE", "/images/{image_id}", gallery.delete, Operation(answer=Deleted)),
    ("POST", "/uploads", pictures.upload, Operation(body=UploadBody, form=UploadForm, answer=Uploaded, headers=CLIENT)),
    ("GET", "/uploads/{upload_id}", pictures.uploaded, Operation(media=("image/png",))),
    ("GET", "/models", models.models, Operation(answer=Models)),
    ("GET", "/models/{model_id:path}/status", models.model_status, Operation(answer=ModelStatus)),
    ("POST", "/models/{model_id:path}/load", models.load, Operation(query=LoadQuery, answer=JobShown, headers=ONCE)),
    ("POST", "/models/{model_id:path}/unload", models.unload, Operation(answer=Unloaded)),
    ("DELETE", "/models/{model_id:path}/quarantine", models.clear_quarantine, Operation(answer=Cleared)),
    ("POST", "/models/{model_id:path}/pull", models.pull, Operation(answer=JobShown)),
    ("DELETE", "/models/{model_id:path}", models.remove, Operation(answer=Removed)),
    ("GET", "/loras", loras.loras, Operation(answer=Loras)),
    ("GET", "/loras/{name:path}/preview", loras.preview, Operation(media=("image/png",))),
    ("GET", "/loras/{name:path}", loras.lora, Operation(answer=LoraDetail)),
    ("GET", "/queue", queue.queue, Operation(query=QueueQuery, answer=Queue)),
    ("POST", "/queue/pause", queue.pause, Operation(answer=Paused)),
    ("POST", "/queue/resume", queue.resume, Operation(answer=Paused)),
    (
        "GET",
        "/events",
        stream.events,
        Operation(query=EventsQuery, headers=RESUMED, media=(EVENT_STREAM,), events=ALL_EVENTS),
    ),
    ("POST", "/tickets", tickets.ticket, Operation(body=TicketBody, answer=Ticket)),
    ("GET", "/health", system.health, Operation(answer=Health)),
    ("GET", "/system", system.system, Operation(answer=System)),
    ("GET", "/findings", system.findings, Operation(answer=Findings)),
    ("GET", "/stats", system.stats, Operation(answer=Stats)),
)
ROUTES = tuple(Route(PREFIX + path, endpoint, methods=[method]) for method, path, endpoint, _ in TABLE)
DESCRIBED = {f"{method} {PREFIX}{path}": operation for method, path, _, operation in TABLE}
IMAGE_PATHS = (f"{PREFIX}/generate", f"{PREFIX}/upscale", f"{PREFIX}/uploads", f"{PREFIX}/images/drawing")
