"""POST generate: what a client may say, and what it means. Refuses what cannot be honoured, by name."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.requests import Request

from adapters.base import core_of, idempotency_key, input_picture, owner_of
from engine.protocol import Lora
from gateway.errors import Forbidden, InvalidRequest
from gateway.job import Priority
from gateway.request import GenerationRequest
from gateway.service import Origin

PREVIEWS = 4


class GenerateBody(BaseModel):
    """POST generate. Source: the documentation's txt2img and img2img tables; aliases from MFLUX-WEBUI's code."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    prompt: str
    model: str | None = Field(None, validation_alias=AliasChoices("model", "sd_model_checkpoint"))
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = Field(None, validation_alias=AliasChoices("steps", "num_inference_steps"))
    guidance: float | None = Field(None, validation_alias=AliasChoices("guidance", "guidance_scale"))
    seed: int | None = None
    num_images: int | None = None
    init_images: list[str] | None = Field(None, validation_alias=AliasChoices("init_images", "images"))
    image_strength: float | None = Field(None, validation_alias=AliasChoices("image_strength", "denoising_strength"))
    lora_files: list[str] | None = None
    lora_scales: list[float] | float | None = None
    low_ram: bool | None = None
    type: Literal["txt2img", "img2img"] | None = None
    preview: bool = False
    priority: Literal["low", "normal", "high"] = "normal"


async def to_request(body: GenerateBody, request: Request) -> GenerationRequest:
    """Raises: InvalidRequest naming the parameter."""
    init_image = None
    if body.init_images:
        if len(body.init_images) > 1:
            raise InvalidRequest("One input picture a job.", param="init_images")
        init_image = await input_picture(request, body.init_images[0], "init_images")
    elif body.type == "img2img":
        raise InvalidRequest("img2img needs init_images.", param="init_images")
    if body.low_ram:
        raise InvalidRequest("low_ram is not available; name a quantised model instead.", param="low_ram")
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
        init_image=init_image,
        denoise=body.image_strength,
        loras=_loras(body),
        previews=PREVIEWS if body.preview else 0,
    )


def _loras(body: GenerateBody) -> tuple[Lora, ...]:
    """By the last part of what is named: no path of a client is ever opened. Raises: InvalidRequest."""
    names = [PurePosixPath(name).name.removesuffix(".safetensors") for name in body.lora_files or ()]
    scales = body.lora_scales if isinstance(body.lora_scales, list) else [body.lora_scales or 1.0] * len(names)
    if len(scales) > len(names):
        raise InvalidRequest("There are more lora_scales than lora_files.", param="lora_scales")
    scales = [*scales, *[1.0] * (len(names) - len(scales))]
    return tuple(Lora(name=name, scale=scale) for name, scale in zip(names, scales, strict=True))


def to_origin(body: GenerateBody, request: Request) -> Origin:
    """Raises: Forbidden for a raised priority where keys divide the users."""
    if body.priority == "high" and core_of(request).settings.access.keys_file is not None:
        raise Forbidden("This key may not raise its priority.")
    return Origin(
        owner=owner_of(request),
        protocol="native",
        attached=False,
        priority=Priority[body.priority.upper()],
        idempotency_key=idempotency_key(request),
    )
