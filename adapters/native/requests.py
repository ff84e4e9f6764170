"""From the bodies and queries of /api/v1 to requests of the core. Refuses what cannot be honoured, by name."""

from __future__ import annotations

import re

from starlette.requests import Request

from adapters.native.errors import NO_UPLOAD
from adapters.native.request_schemas import ControlBody, GenerateBody, JobsQuery
from adapters.native.response_schemas import PriorityName
from adapters.native.responses import STATUS
from adapters.shared.body import store_input_image
from adapters.shared.context import core_of, idempotency_key, is_attached, owner_of, share_of
from engine.protocol import Control, Lora
from gateway.errors import InvalidRequest
from gateway.jobs.job import Priority, State
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest
from gateway.jobs.sampling_request import SamplingRequest

PROTOCOL = "native"
PREVIEWS = 4
UPLOAD_ID = re.compile(r"[0-9a-f]{64}")
STATUS_ALIASES = {"running": "generating", "succeeded": "completed", "waiting": "queued"}
"""Other names of statuses, of MFLUX-WEBUI's code and of the gateway."""


async def to_request(body: GenerateBody, request: Request) -> GenerationRequest:
    """Raises: InvalidRequest naming the parameter, RemoteImagesDisabled."""
    if body.init_images and len(body.init_images) > 1:
        raise InvalidRequest("One input picture a job.", param="init_images")
    if body.type == "img2img" and not body.init_images:
        raise InvalidRequest("img2img needs init_images.", param="init_images")
    if body.mask is not None and not body.init_images:
        raise InvalidRequest("A mask needs init_images.", param="mask")
    loras = to_loras(body)
    references = [await _input_image(request, text, "reference_images") for text in body.reference_images or ()]
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
        init_image=await _input_image(request, body.init_images[0], "init_images") if body.init_images else None,
        denoise=body.image_strength,
        mask=None if body.mask is None else await _input_image(request, body.mask, "mask"),
        references=tuple(references),
        control=None if body.control is None else await _to_control(body.control, request),
        sampling=to_sampling(body),
        loras=loras,
        previews=PREVIEWS if body.preview else 0,
        low_ram=body.low_ram,
        memory=body.memory,
    )


async def _input_image(request: Request, text: str, param: str) -> str:
    """The name of an input image, sent here or uploaded before. Raises: InvalidRequest, RemoteImagesDisabled."""
    if not UPLOAD_ID.fullmatch(text):
        return await store_input_image(request, text, param)
    return await find_upload(request, text, param)


async def find_upload(request: Request, upload_id: str, param: str) -> str:
    """The name of an image that its owner uploaded. Raises: InvalidRequest."""
    try:
        return await core_of(request).service.inputs.renew(upload_id, share_of(request))
    except KeyError:
        raise InvalidRequest(NO_UPLOAD, param=param) from None


async def _to_control(body: ControlBody, request: Request) -> Control:
    image = await _input_image(request, body.image, "control")
    return Control(kind=body.type, image=image, is_map=body.type == "depth" or body.edges, strength=body.strength)


def to_loras(body: GenerateBody) -> tuple[Lora, ...]:
    """What `loras` and `lora_files` name; no path of a client is ever opened. Raises: InvalidRequest."""
    names, scales = body.lora_files or [], body.lora_scales
    if not isinstance(scales, list):
        scales = [1.0 if scales is None else scales] * len(names)
    if len(scales) > len(names):
        raise InvalidRequest("There are more lora_scales than lora_files.", param="lora_scales")
    scales = [*scales, *[1.0] * (len(names) - len(scales))]
    named = (Lora(**lora.model_dump()) for lora in body.loras or ())
    return (*named, *(Lora(name=name, scale=scale) for name, scale in zip(names, scales, strict=True)))


def to_sampling(body: GenerateBody) -> SamplingRequest | None:
    """The sampling of a body; `sampler` and `scheduler` beside it go before its own. None: nothing is said."""
    plain = SamplingRequest(sampler=body.sampler, schedule=body.scheduler)
    sampling = plain if body.sampling is None else plain.over(body.sampling)
    return sampling if sampling.said() else None


def to_origin(request: Request, priority: PriorityName = "normal") -> Origin:
    """Who submits a job that outlives its connection. Raises: InvalidRequest."""
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=is_attached(request),
        priority=Priority[priority.upper()],
        idempotency_key=idempotency_key(request),
    )


def to_states(params: JobsQuery) -> list[State] | None:
    """The states that `status` names; None for all. Raises: InvalidRequest."""
    if params.status is None:
        return None
    names = {STATUS_ALIASES.get(word.strip(), word.strip()) for word in params.status.split(",")}
    if not names <= set(STATUS.values()):
        raise InvalidRequest(f"status must be one of {', '.join(STATUS.values())}.", param="status")
    return [state for state, status in STATUS.items() if status in names]
