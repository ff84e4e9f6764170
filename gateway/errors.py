"""Errors that clients can get. Adapters render them; nothing here knows how.

GatewayError
├── InvalidRequest 400          the request cannot be fulfilled; `param` names the field
│   ├── InsufficientMemory      this machine has too little memory for it; `details` say what would fit
│   ├── MalformedBody           not JSON, too deep, too many nodes, forbidden text
│   ├── RemoteImagesDisabled    a URL instead of an image
│   └── ModelNotServed          listed, but not usable here; the message says why
├── Unauthorized 401
│   └── WrongKey                the request has a key that is none of ours
├── Forbidden 403               foreign host, origin or cross-site request
├── NotFound 404
│   ├── Misplaced               the route exists at another path
│   ├── ModelNotFound           `details["available_models"]`
│   ├── LoraNotFound
│   ├── ModelNotOnDisk          in the catalogue, but not on this machine
│   ├── JobNotFound
│   ├── WorkerNotFound
│   └── ImageGone             the image was removed
├── MethodNotAllowed 405
├── BodyTooSlow 408
├── IdempotencyConflict 409     the same key with another body
├── JobNotWaiting 409           only a waiting job has a place
├── JobNotEnded 409             only an ended job can be tried again
├── ModelKept 409               a model that is in use, or that we did not download, is not removed
├── JobDamaged 410              its record cannot be read; `owner` if that is known
├── BodyTooLarge 413
├── UnsupportedMediaType 415
├── OwnerQueueFull 429
├── TooManyGuesses 429          wrong keys from one address
├── TooManyFiles 429            images of one client that wait to be read
├── TooManyStreams 429          event streams of one client
├── ClientGone 499              the job was cancelled
├── InternalError 500
│   ├── GenerationFailed        the job failed; `code` is the job's failure code
│   └── ImageDamaged          the image's file differs from what was written
├── NotInstalled 501            an optional part of the gateway is missing; the message says which
├── Unavailable 503
│   ├── BodyMemoryFull          large bodies fill the memory for them
│   ├── ModelIsDownloading      it is being downloaded; ask again
│   ├── ModelUnavailable        in quarantine because it kills the engine
│   ├── QueueFull
│   └── EngineDown
└── StorageFault 503            a folder or the database is missing or cannot be written; the message says which
    ├── TooManyOpenFiles        no place is at fault: this process, or the machine, has no descriptor left
    └── StorageFull 507
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """Error with `code`, `status`, a sentence for the client, and the parameter at fault."""

    code = "internal_error"
    status = 500
    message = "The gateway made a mistake."
    usual_retry_after_s: int | None = None
    """Retry-After in seconds if the raising code gives none."""

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.message = message or type(self).message
        self.code = code or type(self).code
        self.param = None if param is None else clip(param)
        self.details = dict(details or {})
        self.retry_after_s = self.usual_retry_after_s if retry_after_s is None else retry_after_s
        super().__init__(self.message)

    @property
    def sentence(self) -> str:
        """The whole message, for protocols whose clients show one text."""
        return self.message


class InvalidRequest(GatewayError):
    code, status, message = "invalid_param", 400, "The request cannot be honoured."


class InsufficientMemory(InvalidRequest):
    """Too little memory; `details["explanation"]` says what is known, and what would fit."""

    code, message = "oom_error", "Insufficient memory. Try using a quantized model or low_ram mode"

    @property
    def sentence(self) -> str:
        explanation = self.details.get("explanation")
        return (
            self.message
            if explanation is None
            else f'{self.message}. {explanation} Or send memory: "try", and it is tried.'
        )


class MalformedBody(InvalidRequest):
    code, message = "invalid_json", "The body is not valid JSON."


class RemoteImagesDisabled(InvalidRequest):
    code = "remote_images_disabled"
    message = "Pictures are not fetched from URLs. Send base64 or a data URL."


class ModelNotServed(InvalidRequest):
    code, message = "model_not_served", "Nothing here can draw with this model."


class Unauthorized(GatewayError):
    code, status, message = "unauthorized", 401, "A valid API key is required."


class WrongKey(Unauthorized):
    pass


class Forbidden(GatewayError):
    code, status, message = "forbidden", 403, "Requests from other sites are refused."


class NotFound(GatewayError):
    code, status, message = "not_found", 404, "There is nothing here."


class Misplaced(NotFound):
    """The route exists below another prefix."""


class ModelNotFound(NotFound):
    code, message = "model_not_found", "No such model."


class ModelNotOnDisk(NotFound):
    code, message = "model_not_on_disk", "The model is not on this machine."


class LoraNotFound(NotFound):
    code, message = "lora_not_found", "No such LoRA."


class JobNotFound(NotFound):
    code, message = "job_not_found", "No such job."


class WorkerNotFound(NotFound):
    code, message = "worker_not_found", "No worker of this name has reported within the last minute."


class ImageGone(NotFound):
    code, message = "picture_gone", "The picture is no longer on disk."


class MethodNotAllowed(GatewayError):
    code, status, message = "method_not_allowed", 405, "The method is not allowed here."
    allowed: tuple[str, ...] = ()
    """The allowed methods; sent as Allow."""


class BodyTooSlow(GatewayError):
    code, status, message = "body_too_slow", 408, "The body came too slowly."


class IdempotencyConflict(GatewayError):
    code, status = "idempotency_conflict", 409
    message = "This Idempotency-Key was used with another request."


class JobNotWaiting(GatewayError):
    code, status, message = "job_not_waiting", 409, "The job does not wait any more."


class JobNotEnded(GatewayError):
    code, status, message = "job_not_ended", 409, "The job has not ended yet."


class ModelKept(GatewayError):
    code, status, message = "model_kept", 409, "The model is in use."


class JobDamaged(GatewayError):
    code, status = "job_damaged", 410
    message = "The record of this job is damaged and was set aside; its pictures are kept on the disk."
    owner: str | None = None


class BodyTooLarge(GatewayError):
    code, status, message = "body_too_large", 413, "The body is too large."


class UnsupportedMediaType(GatewayError):
    code, status, message = "unsupported_media_type", 415, "Send application/json."


class OwnerQueueFull(GatewayError):
    code, status, message = "too_many_jobs", 429, "You have too many jobs waiting."


class TooManyGuesses(GatewayError):
    code, status, message = "too_many_guesses", 429, "Too many wrong keys came from this address."


class TooManyStreams(GatewayError):
    code, status, message = "too_many_streams", 429, "You have too many event streams open."


class TooManyFiles(GatewayError):
    code, status, message = "too_many_files", 429, "Too many of your pictures wait to be read."


class ClientGone(GatewayError):
    code, status, message = "cancelled", 499, "The job was cancelled."


class InternalError(GatewayError):
    pass


class GenerationFailed(InternalError):
    code, message = "generation_failed", "The picture could not be drawn."


class ImageDamaged(InternalError):
    code, message = "picture_damaged", "The picture's file is damaged; draw it again."


class NotInstalled(GatewayError):
    code, status, message = "not_installed", 501, "This part of the gateway is not installed."


class Unavailable(GatewayError):
    code, status, message = "unavailable", 503, "The gateway cannot take this request now."


class BodyMemoryFull(Unavailable):
    code, message = "body_memory_full", "Large requests fill the memory there is for them; ask again in some seconds."


class ModelIsDownloading(Unavailable):
    code, message = "model_downloading", "The model is being downloaded; ask again in a minute."


class ModelUnavailable(Unavailable):
    code, message = "model_unavailable", "The model cannot be used now."


class QueueFull(Unavailable):
    code, message = "queue_full", "The queue is full."


class EngineDown(Unavailable):
    code, message = "engine_down", "The engine is not running."


class StorageFault(GatewayError):
    """The place is at fault and not a job: the same request works when the place is repaired."""

    code, status, message = "storage_unavailable", 503, "What the gateway stores cannot be written."
    usual_retry_after_s = 30


class TooManyOpenFiles(StorageFault):
    message = "The gateway has too many files open."


class StorageFull(StorageFault):
    code, status, message = "storage_full", 507, "There is no room left on the disk."
    needed_bytes: int = 0
    """Bytes that could not be written; 0 if unknown."""


def clip(text: str) -> str:
    """At most 64 characters of a client's text, for a sentence that names it."""
    return text if len(text) <= 64 else text[:61] + "..."
