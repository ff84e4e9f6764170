"""From bodies of mflux-server's clients to requests of the core. Knows no answer."""

from __future__ import annotations

from starlette.requests import Request

from adapters.mflux_server.schemas import GUIDANCE, GenerateBody, LoadBody
from adapters.mflux_server.state import PROTOCOL, Encoding, model_of
from adapters.shared.body import store_input_image
from adapters.shared.context import core_of, idempotency_key, is_attached, owner_of
from engine.catalog import ModelSpec
from engine.protocol import Lora
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.jobs.job import Priority
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest

PREFIX = "/api"
"""Of generation 2; generation 1 is at the root."""
FIRST_STEPS = 4
"""Steps of a request of generation 1 that names none."""
DENOISE = 0.6
"""mflux-server hands every init_image to mflux at `image_strength` 0.4, which keeps four tenths of it."""
FORMAT_CHARS = 16


async def to_request(body: GenerateBody, request: Request) -> GenerationRequest:
    """Raises: InvalidRequest naming the field, RemoteImagesDisabled."""
    init_image = await store_input_image(request, body.init_image, "init_image") if body.init_image else None
    default_steps = None if request.url.path.startswith(PREFIX) else FIRST_STEPS
    return GenerationRequest(
        prompt=body.prompt,
        model=model_of(core_of(request), owner_of(request)),
        width_px=body.width,
        height_px=body.height,
        steps=body.steps or default_steps,
        guidance=body.guidance or GUIDANCE,
        seed=_to_seed(body.seed),
        init_image=init_image,
        denoise=None if init_image is None else DENOISE,
        loras=_to_loras(body),
        memory=body.memory,
    )


def _to_loras(body: GenerateBody) -> tuple[Lora, ...]:
    if len(body.lora_scales) > len(body.lora_paths):
        raise InvalidRequest("There are more lora_scales than lora_paths.", param="lora_scales")
    scales = (*body.lora_scales, *[1.0] * (len(body.lora_paths) - len(body.lora_scales)))
    return tuple(Lora(name=name, scale=scale) for name, scale in zip(body.lora_paths, scales, strict=True))


def _to_seed(value: str | int) -> int | None:
    """The seed as a number, or as its digits; None for an empty string. Raises: InvalidRequest."""
    if isinstance(value, int):
        return value
    text = value.strip()
    if not text:
        return None
    if len(text) > 20 or not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidRequest("seed must be a whole number, as a number or as a string.", param="seed")
    return int(text)


def to_origin(body: GenerateBody, request: Request) -> Origin:
    """Raises: InvalidRequest."""
    if not 1 <= body.quality <= 100:
        raise InvalidRequest("quality must be between 1 and 100.", param="quality")
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=is_attached(request),
        priority=Priority.HIGH if body.priority else Priority.NORMAL,
        idempotency_key=idempotency_key(request),
        note=Encoding(body.format.upper()[:FORMAT_CHARS], body.quality).to_note(),
    )


def to_model(body: LoadBody, core: Core) -> ModelSpec:
    """The model that is to be loaded: `quantize` picks the catalogue's row of that many bits.

    Raises: ModelNotFound; InvalidRequest where there is no such row.
    """
    spec = core.library.find(body.model)
    bits = spec.quantize or core.settings.models.quantize
    if body.quantize in (None, bits):
        return spec
    for row in core.library.specs:
        if spec.quantize is None and row.name == f"{spec.name}-{body.quantize}-bit":
            return row
    raise InvalidRequest(f"{spec.name} cannot be loaded at that many bits.", param="quantize")
