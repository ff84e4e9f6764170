"""Bodies and queries that clients of /api/v1 send, as pydantic models. Knows no job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, ConfigDict, Field

from adapters.native.response_schemas import PriorityName
from engine.protocol import MemoryCheck
from gateway.http.openapi import File
from gateway.jobs.sampling_request import SamplingRequest
from gateway.lazy_model import DocumentedModel

QUEUE_MAX = 1000
PAGE_MAX = 500


class Payload(DocumentedModel):
    """A body or a query, or a part of one."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class LoraBody(Payload):
    """One LoRA to draw with."""

    name: str
    """As GET loras lists it, or one of its aliases."""
    scale: float = 1.0
    """-4 to 4."""
    text_encoder_scale: float | None = None
    """For Stable Diffusion: scale of its changes of text encoders; null: `scale`."""


class ControlBody(Payload):
    """What the drawn picture follows, for models whose `capabilities.control` says so."""

    type: Literal["canny", "depth"]
    image: str
    """A depth map, near parts light; or any picture, whose outlines are found."""
    edges: bool = False
    """`canny`: the picture is white outlines on black already."""
    strength: float = 1.0
    """0 to 2."""


class GenerateBody(Payload):
    """POST generate. A picture is base64, a data URL, or the id of an upload.

    Source: the documentation's txt2img and img2img tables; aliases from MFLUX-WEBUI's code.
    """

    model_config = ConfigDict(extra="allow")

    prompt: str
    model: str | None = Field(None, validation_alias=AliasChoices("model", "sd_model_checkpoint"))
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = Field(None, validation_alias=AliasChoices("steps", "num_inference_steps"))
    guidance: float | None = Field(None, validation_alias=AliasChoices("guidance", "guidance_scale"))
    seed: int | None = None
    """-1 and null are random; fixed at submit. Pictures after the first have the seeds that follow.

    64 bits, with a sign or without; as text where a language's numbers have 53 bits, as JavaScript's have.
    """
    num_images: int | None = None
    init_images: list[str] | None = Field(None, validation_alias=AliasChoices("init_images", "images"))
    """One picture that is drawn over."""
    image_strength: float | None = Field(None, validation_alias=AliasChoices("image_strength", "denoising_strength"))
    """0 keeps the input picture, 1 ignores it."""
    mask: str | None = None
    """White is repainted, black stays; stretched to the size of the picture."""
    reference_images: list[str] | None = None
    """Pictures that the drawn one follows, for models that edit."""
    control: ControlBody | None = None
    sampling: SamplingRequest | None = None
    """How Stable Diffusion is sampled. Other models report what they do not honour of it."""
    sampler: str | None = None
    """As `sampling.sampler`."""
    scheduler: str | None = None
    """As `sampling.schedule`."""
    loras: list[LoraBody] | None = None
    lora_files: list[str] | None = None
    """Names, or paths inside the folders of LoRAs."""
    lora_scales: list[float] | float | None = None
    """One a file, or one for all; 1 where nothing is said."""
    low_ram: bool | None = None
    """Decode in strips or tiles and keep no freed memory: less at the peak, slower. null: as the server is set."""
    memory: MemoryCheck = "check"
    """`try`: draw it even where it seems not to fit into memory; what is known of that is among the adjustments."""
    type: Literal["txt2img", "img2img"] | None = None
    preview: bool = False
    """Make small previews while it is drawn."""
    priority: PriorityName = "normal"
    """With keys, only operators may say `high`; `background` runs when nothing else waits, or once it has aged."""


class UpscaleFields(Payload):
    """How a picture is drawn larger. Without `scale`, `width` and `height` it becomes twice as large."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """`seedvr2-3b` or `seedvr2-7b`; without it, the one that is here."""
    scale: float | None = Field(None, validation_alias=AliasChoices("scale", "upscale_factor"))
    """1 to 16."""
    width: int | None = None
    """Of the result, whose height follows."""
    height: int | None = None
    """Of the result, whose width follows; with both, the result covers them."""
    softness: float | None = None
    """0 keeps the picture's own detail, 1 gives the model the most freedom."""
    seed: int | None = None
    """-1 and null are random."""
    video: str | None = None
    """Refused: videos cannot be upscaled here."""
    memory: MemoryCheck = "check"
    """`try`: draw it even where it seems not to fit into memory."""
    priority: PriorityName = "normal"


class UpscaleBody(UpscaleFields):
    """POST upscale, as JSON."""

    image: str
    """base64, a data URL, the id of an upload, or of a picture of yours."""


class UpscaleForm(UpscaleFields):
    """POST upscale, as a form."""

    image: File


class JobsQuery(Payload):
    """GET jobs."""

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,16}$")] | None = None
    """The `next_cursor` of the page before."""
    status: Annotated[str, Field(min_length=1, json_schema_extra={"example": "queued,generating"})] | None = None
    """One status, or several with commas between them."""
    protocol: Annotated[str, Field(max_length=64)] | None = None
    """`native`, `sdapi`, `openai`, `xinference` or `mflux-server`: what the job came in by."""


class LoadQuery(Payload):
    """POST models/{id}/load."""

    memory: MemoryCheck = "check"
    """`try`: load it even where it seems not to fit into memory."""


class JobQuery(Payload):
    """GET jobs/{id}."""

    images: bool = True
    """Whether `result` is there, with the pictures as base64."""


class QueueQuery(Payload):
    """GET queue."""

    limit: Annotated[int, Field(ge=1, le=QUEUE_MAX)] = QUEUE_MAX
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """So many of your waiting jobs are left out, those in front."""


class EventsQuery(Payload):
    """GET events."""

    ticket: Annotated[str, Field(min_length=1)] | None = None
    """Of POST tickets, instead of a key."""
    last_event_id: Annotated[str, Field(max_length=255)] | None = Field(
        None, validation_alias=AliasChoices("lastEventId", "last_event_id")
    )
    """As the Last-Event-ID header, which goes before it. Source: event-source-polyfill sends it so."""


class StreamQuery(JobQuery, EventsQuery):
    """GET jobs/{id}/stream."""


class TicketBody(Payload):
    """POST tickets."""

    job_id: str | None = None
    """Whose stream is to be opened; without it, the one of all your jobs."""


class MoveBody(Payload):
    """POST jobs/{id}/move: exactly one of the three says where, among your own waiting jobs."""

    before: str | None = None
    """The job that it is to run before."""
    position: Annotated[int, Field(ge=0)] | None = None
    """As jobs show it."""
    to: Literal["front", "end"] | None = None


class UploadBody(Payload):
    """POST uploads, as JSON."""

    image: str
    """base64 or a data URL."""


class UploadForm(Payload):
    """POST uploads, as a form."""

    image: File


class ImageQuery(Payload):
    """GET a picture."""

    format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Of JPEG and WebP."""
    max_px: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Of the longer edge: a smaller copy, which does not say how it was drawn."""


class ImagesQuery(Payload):
    """GET images."""

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 60
    """As many at least, where there are as many: the pictures of one job stay together."""
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,16}$")] | None = None
    """The `next_cursor` of the page before."""
    search: Annotated[str, Field(max_length=200)] = ""
    """Words that all occur in the prompt."""
    model: Annotated[str, Field(max_length=256)] | None = None
    protocol: Annotated[str, Field(max_length=64)] | None = None
    """What the job came in by, as of `GET jobs`."""
