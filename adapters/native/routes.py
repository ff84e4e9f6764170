"""The table of /api/v1: each route with what serves it and what it takes and answers."""

from __future__ import annotations

from adapters.native import gallery, images, jobs, loras, models, queue, stream, system, tickets, upscale, workers
from adapters.native.event_schemas import ALL_EVENTS, EVENTS
from adapters.native.model_schemas import Cleared, LoraDetail, Loras, Models, ModelStatus, Removed, Unloaded
from adapters.native.request_schemas import (
    EventsQuery,
    GenerateBody,
    ImageQuery,
    ImagesQuery,
    JobQuery,
    JobsQuery,
    LoadQuery,
    MoveBody,
    QueueQuery,
    StreamQuery,
    TicketBody,
    UploadBody,
    UploadForm,
    UpscaleBody,
    UpscaleForm,
)
from adapters.native.response_schemas import (
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
from adapters.native.responses import PREFIX
from adapters.native.worker_schemas import Workers, WorkerShown
from adapters.shared.table import Row, below, described, routes_of
from gateway.http.openapi import EVENTS as EVENT_STREAM
from gateway.http.openapi import Operation

UNSTORED = {202: "It has stopped, and the disk does not take that yet; a restart before it does runs it again."}
UNCHANGED = {304: "The client has it already."}
NO_PREVIEW = {204: "There is none now."}
DELIVERED = {204: "It was told to its end."}
ETAG = ("If-None-Match",)
RESUMED = ("Last-Event-ID",)
ONCE = ("Idempotency-Key",)
CLIENT = ("X-Client-Id",)

SUBMIT = Operation(body=GenerateBody, answer=Submitted, headers=ONCE)
SUBMIT_UPSCALE = Operation(body=UpscaleBody, form=UpscaleForm, answer=Submitted, headers=ONCE)
FOLLOW = Operation(query=StreamQuery, headers=RESUMED, media=(EVENT_STREAM,), also=DELIVERED, events=EVENTS)
FOLLOW_ALL = Operation(query=EventsQuery, headers=RESUMED, media=(EVENT_STREAM,), events=ALL_EVENTS)
MOVED = {307: "The picture is at the address in Location, for a minute, where files.presigned is set."}
IMAGE = Operation(
    query=ImageQuery,
    headers=ETAG,
    media=("image/png", "image/jpeg", "image/webp"),
    also={**UNCHANGED, **MOVED},
)
PREVIEW = Operation(headers=ETAG, media=("image/jpeg",), also={**NO_PREVIEW, **UNCHANGED})
READ_DRAWING = Operation(body=UploadBody, form=UploadForm, answer=Provenance, headers=CLIENT)
UPLOAD = Operation(body=UploadBody, form=UploadForm, answer=Uploaded, headers=CLIENT)
LOAD = Operation(query=LoadQuery, answer=JobShown, headers=ONCE)

TABLE = below(
    PREFIX,
    (
        Row("POST", "/generate", jobs.generate, SUBMIT),
        Row("POST", "/upscale", upscale.upscale, SUBMIT_UPSCALE),
        Row("GET", "/jobs", jobs.list_jobs, Operation(query=JobsQuery, answer=Jobs)),
        Row("GET", "/jobs/{job_id}", jobs.get_job, Operation(query=JobQuery, answer=JobShown)),
        Row("DELETE", "/jobs/{job_id}", jobs.cancel, Operation(answer=Ended, also=UNSTORED)),
        Row("GET", "/jobs/{job_id}/stream", stream.stream_job, FOLLOW),
        Row("POST", "/jobs/{job_id}/retry", jobs.retry, Operation(answer=JobShown, headers=ONCE)),
        Row("POST", "/jobs/{job_id}/move", jobs.move, Operation(body=MoveBody, answer=JobShown)),
        Row("GET", "/jobs/{job_id}/images/{index:int}", images.get_job_image, IMAGE),
        Row("GET", "/jobs/{job_id}/preview", images.get_preview, PREVIEW),
        Row("GET", "/images", gallery.list_images, Operation(query=ImagesQuery, answer=Images)),
        Row("POST", "/images/drawing", gallery.read_drawing, READ_DRAWING),
        Row("GET", "/images/{image_id}", images.get_image, IMAGE),
        Row("DELETE", "/images/{image_id}", gallery.delete_image, Operation(answer=Deleted)),
        Row("POST", "/uploads", images.upload, UPLOAD),
        Row("GET", "/uploads/{upload_id}", images.get_upload, Operation(media=("image/png",))),
        Row("GET", "/models", models.list_models, Operation(answer=Models)),
        Row("GET", "/models/{model_id:path}/status", models.get_status, Operation(answer=ModelStatus)),
        Row("POST", "/models/{model_id:path}/load", models.load, LOAD),
        Row("POST", "/models/{model_id:path}/unload", models.unload, Operation(answer=Unloaded)),
        Row("DELETE", "/models/{model_id:path}/quarantine", models.clear_quarantine, Operation(answer=Cleared)),
        Row("POST", "/models/{model_id:path}/pull", models.pull, Operation(answer=JobShown)),
        Row("DELETE", "/models/{model_id:path}", models.remove, Operation(answer=Removed)),
        Row("GET", "/loras", loras.list_loras, Operation(answer=Loras)),
        Row("GET", "/loras/{name:path}/preview", loras.get_preview, Operation(media=("image/png",))),
        Row("GET", "/loras/{name:path}", loras.get_lora, Operation(answer=LoraDetail)),
        Row("GET", "/queue", queue.get_queue, Operation(query=QueueQuery, answer=Queue)),
        Row("POST", "/queue/pause", queue.pause, Operation(answer=Paused)),
        Row("POST", "/queue/resume", queue.resume, Operation(answer=Paused)),
        Row("GET", "/workers", workers.list_workers, Operation(answer=Workers)),
        Row("POST", "/workers/{name}/drain", workers.drain, Operation(answer=WorkerShown)),
        Row("POST", "/workers/{name}/resume", workers.resume, Operation(answer=WorkerShown)),
        Row("GET", "/events", stream.stream_all, FOLLOW_ALL),
        Row("POST", "/tickets", tickets.create_ticket, Operation(body=TicketBody, answer=Ticket)),
        Row("GET", "/health", system.get_health, Operation(answer=Health)),
        Row("GET", "/system", system.get_system, Operation(answer=System)),
        Row("GET", "/findings", system.list_findings, Operation(answer=Findings)),
        Row("GET", "/stats", system.get_stats, Operation(answer=Stats)),
    ),
)
ROUTES = routes_of(TABLE)
DESCRIBED = described(TABLE)
IMAGE_PATHS = tuple(row.path for row in TABLE if row.operation.body in (GenerateBody, UpscaleBody, UploadBody))
