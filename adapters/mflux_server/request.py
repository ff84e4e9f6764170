"""POST generate and POST load: what a client may say, and what it means. Knows no answer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from adapters.mflux_server.state import PROTOCOL, chosen
from adapters.shared.body import input_picture
from adapters.shared.context import core_of, idempotency_key, owner_of
from engine.catalog import ModelSpec
from engine.protocol import Lora, MemoryCheck
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.jobs.job import Priority
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest

DENOISE = 0.6
"""mflux-server hands every init_image to mflux at `image_strength` 0.4, which keeps four tenths of it."""

GUIDANCE = 3.5
FORMAT_CHARS = 16


class GenerateBody(BaseModel):
    """POST generate. Source: `TaskInput` of mflux-server; unknown fields are ignored, null is a wrong type."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", use_attribute_docstrings=True)

    prompt: str
    seed: str | int = ""
    height: int = 1024
    width: int = 1024
    steps: int = 0
    """0: as many as the model's own."""
    guidance: float = GUIDANCE
    format: str = "JPEG"
    quality: int = 85
    priority: bool = False
    init_image: str | None = None
    lora_paths: list[str] = []
    """LoRAs by name, or by a path inside the folders of LoRAs. Not in mflux-server: mflux's own words."""
    lora_scales: list[float] = []
    """One a LoRA; 1 where there are fewer."""
    memory: MemoryCheck = "check"
    """`try`: draw what seems not to fit into memory. Not in mflux-server."""


class LoadBody(BaseModel):
    """POST load. Source: the web page of mflux-server generation 2."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", use_attribute_docstrings=True)

    model: str
    quantize: int | None = None
    memory: MemoryCheck = "check"
    """`try`: load what seems not to fit into memory. Not in mflux-server."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a task's picture is handed out; kept in its job's note."""

    format: str = "JPEG"
    """As the client named it, in capitals. Anything but PNG is encoded as JPEG."""
    quality: int = 85

    @property
    def is_png(self) -> bool:
        return self.format == "PNG"

    @property
    def media_type(self) -> str:
        return "image/png" if self.is_png else "image/jpeg"

    def to_note(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_note(cls, note: str) -> Encoding:
        return cls(**json.loads(note)) if note else cls()


async def to_request(body: GenerateBody, request: Request, *, default_steps: int | None) -> GenerationRequest:
    """Raises: InvalidRequest naming the field, RemoteImagesDisabled."""
    init_image = await input_picture(request, body.init_image, "init_image") if body.init_image else None
    return GenerationRequest(
        prompt=body.prompt,
        model=chosen(core_of(request), owner_of(request)),
        width_px=body.width,
        height_px=body.height,
        steps=body.steps or default_steps,
        guidance=body.guidance or GUIDANCE,
        seed=_seed(body.seed),
        init_image=init_image,
        denoise=None if init_image is None else DENOISE,
        loras=_loras(body),
        memory=body.memory,
    )


def _loras(body: GenerateBody) -> tuple[Lora, ...]:
    if len(body.lora_scales) > len(body.lora_paths):
        raise InvalidRequest("There are more lora_scales than lora_paths.", param="lora_scales")
    scales = (*body.lora_scales, *[1.0] * (len(body.lora_paths) - len(body.lora_scales)))
    return tuple(Lora(name=name, scale=scale) for name, scale in zip(body.lora_paths, scales, strict=True))


def to_origin(body: GenerateBody, request: Request) -> Origin:
    """Raises: InvalidRequest."""
    if not 1 <= body.quality <= 100:
        raise InvalidRequest("quality must be between 1 and 100.", param="quality")
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=False,
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


def _seed(said: str | int) -> int | None:
    """A number, or its digits as a string; an empty string says nothing. Raises: InvalidRequest."""
    if isinstance(said, int):
        return said
    text = said.strip()
    if not text:
        return None
    if len(text) > 20 or not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidRequest("seed must be a whole number, as a number or as a string.", param="seed")
    return int(text)
