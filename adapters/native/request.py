"""What clients of /api/v1 may say, and what it means. Refuses what cannot be honoured, by name."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.requests import Request

from adapters.native.answers import ALSO_CALLED, STATUS
from adapters.native.shapes import Priority as PriorityName
from adapters.shared.body import input_picture
from adapters.shared.context import core_of, idempotency_key, owner_of, share_of
from engine.protocol import Control, Lora, MemoryCheck
from gateway.errors import InvalidRequest
from gateway.http.openapi import File
from gateway.jobs.job import Priority, State
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest

PREVIEWS = 4
QUEUE_MAX = 1000
PAGE_MAX = 500
UPLOAD = re.compile(r"[0-9a-f]{64}")
NAMES = {"width_px": "width", "height_px": "height", "count": "num_images", "denoise": "image_strength"} | {
    "references": "reference_images",
    "init_image": "init_images",
}
"""The core's words for a parameter, where this protocol has others."""


class Said(BaseModel):
    """What a client says."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, use_attribute_docstrings=True)


class LoraBody(Said):
    """One LoRA to draw with."""

    name: str
    """As GET loras lists it, or one of its aliases."""
    scale: float = 1.0
    """-4 to 4."""


class ControlBody(Said):
    """What the drawn picture follows, for models whose `capabilities.control` says so."""

    type: Literal["canny", "depth"]
    image: str
    """A depth map, near parts light; or any picture, whose outlines are found."""
    edges: bool = False
    """`canny`: the picture is white outlines on black already."""
    strength: float = 1.0
    """0 to 2."""


class GenerateBody(Said):
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


class JobsQuery(Said):
    """GET jobs."""

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,16}$")] | None = None
    """The `next_cursor` of the page before."""
    status: Annotated[str, Field(min_length=1, json_schema_extra={"example": "queued,generating"})] | None = None
    """One status, or several with commas between them."""
    protocol: Annotated[str, Field(max_length=64)] | None = None
    """`native`, `sdapi`, `openai`, `xinference` or `mflux-server`: what the job came in by."""

    @property
    def states(self) -> list[State] | None:
        """Raises: InvalidRequest."""
        if self.status is None:
            return None
        wanted = {ALSO_CALLED.get(word.strip(), word.strip()) for word in self.status.split(",")}
        if not wanted <= set(STATUS.values()):
            raise InvalidRequest(f"status must be one of {', '.join(STATUS.values())}.", param="status")
        return [state for state, status in STATUS.items() if status in wanted]


class LoadQuery(Said):
    """POST models/{id}/load."""

    memory: MemoryCheck = "check"
    """`try`: load it even where it seems not to fit into memory."""


class JobQuery(Said):
    """GET jobs/{id}."""

    images: bool = True
    """Whether `result` is there, with the pictures as base64."""


class QueueQuery(Said):
    """GET queue."""

    limit: Annotated[int, Field(ge=1, le=QUEUE_MAX)] = QUEUE_MAX
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """So many of your waiting jobs are left out, those in front."""


class EventsQuery(Said):
    """GET events."""

    ticket: Annotated[str, Field(min_length=1)] | None = None
    """Of POST tickets, instead of a key."""
    last_event_id: Annotated[str, Field(max_length=255)] | None = Field(
        None, validation_alias=AliasChoices("lastEventId", "last_event_id")
    )
    """As the Last-Event-ID header, which goes before it. Source: event-source-polyfill sends it so."""


class StreamQuery(JobQuery, EventsQuery):
    """GET jobs/{id}/stream."""


class TicketBody(Said):
    """POST tickets."""

    job_id: str | None = None
    """Whose stream is to be opened; without it, the one of all your jobs."""


class MoveBody(Said):
    """POST jobs/{id}/move: exactly one of the three says where, among your own waiting jobs."""

    before: str | None = None
    """The job that it is to run before."""
    position: Annotated[int, Field(ge=0)] | None = None
    """As jobs show it."""
    to: Literal["front", "end"] | None = None


class UploadBody(Said):
    """POST uploads, as JSON."""

    image: str
    """base64 or a data URL."""


class UploadForm(Said):
    """POST uploads, as a form."""

    image: File


class PictureQuery(Said):
    """GET a picture."""

    format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Of JPEG and WebP."""
    max_px: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Of the longer edge: a smaller copy, which does not say how it was drawn."""


class ImagesQuery(Said):
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


async def to_request(body: GenerateBody, request: Request) -> GenerationRequest:
    """Raises: InvalidRequest naming the parameter."""
    if body.init_images and len(body.init_images) > 1:
        raise InvalidRequest("One input picture a job.", param="init_images")
    if body.type == "img2img" and not body.init_images:
        raise InvalidRequest("img2img needs init_images.", param="init_images")
    if body.mask is not None and not body.init_images:
        raise InvalidRequest("A mask needs init_images.", param="mask")
    loras = _loras(body)
    references = [await _picture(request, text, "reference_images") for text in body.reference_images or ()]
    return GenerationRequest(
        prompt=body.prompt,
        model=body.model,
        negative_prompt=body.negative_prompt,
        width_px=body.width,
        height_px=body.height,
        steps=body.steps,
        guidance=body.guidance,
        seed=body.seed,
        count=body.num_images,
        init_image=await _picture(request, body.init_images[0], "init_images") if body.init_images else None,
        denoise=body.image_strength,
        mask=None if body.mask is None else await _picture(request, body.mask, "mask"),
        references=tuple(references),
        control=None if body.control is None else await _control(body.control, request),
        loras=loras,
        previews=PREVIEWS if body.preview else 0,
        low_ram=body.low_ram,
        memory=body.memory,
    )


async def _picture(request: Request, text: str, param: str) -> str:
    """The name of a picture that is sent, or was uploaded. Raises: InvalidRequest, RemoteImagesDisabled."""
    if not UPLOAD.fullmatch(text):
        return await input_picture(request, text, param)
    return await kept_upload(request, text, param)


async def kept_upload(request: Request, text: str, param: str) -> str:
    """The name of a picture that its owner uploaded. Raises: InvalidRequest."""
    try:
        return await core_of(request).service.inputs.renew(text, share_of(request))
    except KeyError:
        raise InvalidRequest("There is no such upload, or it has expired.", param=param) from None


async def _control(said: ControlBody, request: Request) -> Control:
    image = await _picture(request, said.image, "control")
    return Control(kind=said.type, image=image, is_map=said.type == "depth" or said.edges, strength=said.strength)


def _loras(body: GenerateBody) -> tuple[Lora, ...]:
    """What `loras` and `lora_files` name; no path of a client is ever opened. Raises: InvalidRequest."""
    names = body.lora_files or []
    said = body.lora_scales
    scales = said if isinstance(said, list) else [1.0 if said is None else said] * len(names)
    if len(scales) > len(names):
        raise InvalidRequest("There are more lora_scales than lora_files.", param="lora_scales")
    scales = [*scales, *[1.0] * (len(names) - len(scales))]
    named = [(lora.name, lora.scale) for lora in body.loras or ()]
    return tuple(Lora(name=name, scale=scale) for name, scale in (*named, *zip(names, scales, strict=True)))


def to_origin(body: GenerateBody, request: Request) -> Origin:
    return origin_at(body.priority, request)


def origin_at(priority: PriorityName, request: Request) -> Origin:
    """Raises: InvalidRequest."""
    return Origin(
        owner=owner_of(request),
        protocol="native",
        attached=False,
        priority=Priority[priority.upper()],
        idempotency_key=idempotency_key(request),
    )
