"""The bodies and queries that clients of /v1 send. Pure: knows no connection, no image and no job."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field

from adapters.v1.values import (
    PROMPT_CHARS,
    Background,
    EchoText,
    Loras,
    NoFrames,
    NoStream,
    NoVector,
    Number,
    OutputFormat,
    Pages,
    ResponseFormat,
    Seeds,
    Size,
    Whole,
    check_not_blank,
)
from engine.protocol import MemoryCheck
from gateway.http.openapi import File
from gateway.jobs.sampling_request import SamplingRequest
from gateway.lazy_model import LazyModel

GPT_IMAGE = re.compile(r"(chat)?gpt-image(-|$)")

NAMES: dict[str, tuple[str, ...]] = {
    "seed": ("seed",),
    "steps": ("steps", "num_inference_steps", "step"),
    "guidance": ("guidance", "guidance_scale", "cfg_scale"),
    "negative_prompt": ("negative_prompt",),
    "denoise": ("strength", "image_strength", "denoising_strength"),
    "width": ("width", "size"),
    "height": ("height", "size"),
    "count": ("n",),
    "loras": ("loras", "lora"),
    "sampling.sampler": ("sampler_name", "sampler"),
    "sampling.schedule": ("scheduler",),
    "references": ("image", "images", "url"),
    "init_image": ("image", "images", "url"),
    "mask": ("mask", "mask_image"),
}
"""The core's name of each parameter, and the names that clients of /v1 send for it, the preferred one first."""

Prompt = Annotated[str, Field(max_length=PROMPT_CHARS), AfterValidator(check_not_blank)]


# ---- images ----------------------------------------------------------------------------------------


class ImageBody(LazyModel):
    """The fields that every route that draws understands, after `payload.flatten`. All other fields are ignored.

    Source: `ImageGenerateParams` of openai 3.52; `seed` and below: the dialects of Xinference, LocalAI, vLLM-Omni,
    SGLang-diffusion and mlx-openai-server.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    events: ClassVar[str] = "image_generation"
    """What the names of its stream's events begin with."""

    prompt: Prompt
    model: str | None = None
    n: Annotated[Whole, Field(ge=1, le=10)] | None = None
    size: Size = None
    response_format: ResponseFormat | None = None
    output_format: OutputFormat = "png"
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = None
    background: Background | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] | None = None
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["low", "auto"] | None = None
    complexity: Literal["low", "medium", "high"] | None = None
    frame_count: NoFrames = None
    frame_duration_ms: NoFrames = None
    svg: NoVector = None
    user: EchoText = None
    safety_identifier: EchoText = None
    stream: Annotated[bool, Field(strict=True)] = False
    partial_images: Annotated[Whole, Field(ge=0, le=3)] = 0

    seed: Seeds | None = None
    steps: Whole | None = Field(None, validation_alias=AliasChoices(*NAMES["steps"]))
    guidance: Number | None = Field(None, validation_alias=AliasChoices(*NAMES["guidance"]))
    negative_prompt: str | None = None
    width: Whole | None = None
    height: Whole | None = None
    loras: Loras = Field(default=[], validation_alias=AliasChoices(*NAMES["loras"]))
    sampler: str | None = Field(None, validation_alias=AliasChoices(*NAMES["sampling.sampler"]))
    """Of Stable Diffusion, as `GET /sdapi/v1/samplers` lists them; `default` is none (Xinference)."""
    scheduler: str | None = None
    """Of Stable Diffusion, as `GET /sdapi/v1/schedulers` lists them."""
    memory: MemoryCheck = "check"
    """Ours: "try" draws what seems not to fit into memory."""
    request_id: Annotated[str, Field(max_length=128)] | None = None
    """The client's own name for the request, by which it asks for progress (Xinference)."""

    @property
    def quality_word(self) -> str:
        """The quality in the words of OpenAI's current API; the steps, and not this, decide how good an image gets."""
        return {"standard": "medium", "hd": "high"}.get(self.quality or "auto", self.quality or "auto")

    @property
    def sampling(self) -> SamplingRequest | None:
        """The sampler and schedule that the client named; None where it named none."""
        sampler, schedule = (None if name in ("", "default") else name for name in (self.sampler, self.scheduler))
        named = SamplingRequest(sampler=sampler, schedule=schedule)
        return named if named.said() else None

    @property
    def effective_safety_identifier(self) -> str | None:
        """The identifier that answers repeat. Source: openai 3.52, `ImagesResponse` and `ImageGenCompletedEvent`."""
        return self.safety_identifier or self.user or None

    @property
    def rows(self) -> frozenset[ResponseFormat]:
        """The keys of a data row that are filled.

        A client that names no format gets both: LangChain reads `url`, the AI SDK `b64_json`. Open WebUI sends no
        response_format for gpt-image names, reads `url` first and refuses one of a private network.
        """
        if self.response_format is not None:
            return frozenset({self.response_format})
        if self.model is not None and GPT_IMAGE.match(self.model):
            return frozenset({"b64_json"})
        return frozenset({"url", "b64_json"})

    @property
    def size_px(self) -> tuple[int | None, int | None]:
        """Width and height in pixels, None where the client sent none; `width` and `height` go before `size`."""
        width_px, height_px = self.size or (None, None)
        return (
            self.width if self.width is not None else width_px,
            self.height if self.height is not None else height_px,
        )


class Generation(ImageBody):
    """POST /v1/images/generations."""


class InputImageBody(ImageBody):
    """The further fields of the routes that take images."""

    denoise: Number | None = Field(None, validation_alias=AliasChoices(*NAMES["denoise"]))
    mask_blur: Annotated[Number, Field(ge=0, le=256)] | None = None
    """Radius in pixels by which the edge of the mask is softened (Xinference)."""


class Edit(InputImageBody):
    """POST /v1/images/edits. Source: `ImageEditParams` of openai 3.52."""

    events: ClassVar[str] = "image_edit"

    input_fidelity: Literal["high", "low"] | None = None


class EditJson(Edit):
    """Pictures are data URLs or base64."""

    image: str | list[str]
    reference_image: list[str] | None = None
    mask: str | None = None
    markup: str | None = None


class EditForm(Edit):
    """Several pictures come as parts of the name `image` or `image[]`."""

    image: list[File]
    reference_image: list[File] | None = None
    mask: File | None = None
    markup: File | None = None


class Variation(InputImageBody):
    """POST /v1/images/variations. Source: `ImageCreateVariationParams` of openai 3.52; `prompt` is Xinference's."""

    prompt: Annotated[str, Field(max_length=PROMPT_CHARS)] = ""
    stream: NoStream = False


class VariationJson(Variation):
    """Pictures are data URLs or base64."""

    image: str


class VariationForm(Variation):
    image: File


class Inpainting(InputImageBody):
    """POST /v1/images/inpainting of Xinference and LocalAI."""

    stream: NoStream = False


class InpaintingJson(Inpainting):
    """Pictures are data URLs or base64."""

    image: str
    mask_image: str


class InpaintingForm(Inpainting):
    image: File
    mask_image: File


class ContentQuery(LazyModel):
    """GET a picture by its address."""

    model_config = ConfigDict(frozen=True)

    output_compression: int | None = Field(None, ge=0, le=100)


# ---- OCR -------------------------------------------------------------------------------------------


class OcrBody(LazyModel):
    """The fields beside the image, in the form itself or in its `kwargs`. All other fields are ignored.

    Source: `create_ocr` of Xinference; `boxes` is ours.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    pages: Pages | None = None
    dpi: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    return_dict: bool = False
    boxes: bool = False
    task: Literal["ocr"] | None = None
    request_id: Annotated[str, Field(max_length=256)] | None = None

    @property
    def is_structured(self) -> bool:
        """Whether the answer is lines with their boxes instead of text."""
        return self.return_dict or self.boxes


class OcrJson(OcrBody):
    """The picture is a data URL or base64; so is a PDF."""

    image: str


class OcrForm(OcrBody):
    image: File


# ---- models ----------------------------------------------------------------------------------------


class Launch(LazyModel):
    """POST /v1/models. Source: `Client.launch_model` of xinference_client 4.1."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model_name: str
    model_type: str | None = None
    memory: MemoryCheck = "check"
    """Ours: "try" loads what seems not to fit into memory."""
    model_uid: str | None = None


class WaitQuery(LazyModel):
    """POST models."""

    model_config = ConfigDict(frozen=True)

    wait_ready: bool = True


class InstanceQuery(LazyModel):
    """GET instances."""

    model_config = ConfigDict(frozen=True)

    model_name: str | None = None
    model_uid: str | None = None


class RegistrationsQuery(LazyModel):
    """GET the registrations."""

    model_config = ConfigDict(frozen=True)

    detailed: bool = False


class CachedQuery(LazyModel):
    """GET what is on disk. `worker_ip` is of a cluster, and ignored."""

    model_config = ConfigDict(frozen=True)

    model_name: str | None = None


class Login(LazyModel):
    """POST /token. Source: `Client.login` of xinference_client 4.1; the password is a key, whose name nobody asks."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    username: str | None = None
    password: str
