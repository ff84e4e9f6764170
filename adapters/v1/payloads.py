"""What a client of /v1 may say, and what it means to the core. Pure: knows no connection, no picture and no job."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from adapters.shared.body import check_unknown_pictures
from adapters.v1.values import (
    PROMPT_CHARS,
    Background,
    Loras,
    NoFrames,
    NoStream,
    NoVector,
    Number,
    OutputFormat,
    ResponseFormat,
    SaidText,
    Seeds,
    Size,
    Whole,
    not_blank,
)
from engine.protocol import MemoryCheck
from gateway.errors import InvalidRequest
from gateway.jobs.resolve import GenerationRequest
from gateway.strict_json import parse as parse_json

BORROWED_NAME = re.compile(r"dall-e-[23]|(chat)?gpt-image(-[A-Za-z0-9._-]{1,64})?")
"""Model names of OpenAI's that clients have built in; they mean the default model."""
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
    "references": ("image", "images", "url"),
    "init_image": ("image", "images", "url"),
    "mask": ("mask", "mask_image"),
}
"""The core's words for a parameter, and how this prefix's clients spell them, the preferred spelling first."""

IN_KWARGS = {name for word in ("seed", "steps", "guidance", "negative_prompt", "denoise") for name in NAMES[word]}
IN_KWARGS |= {"width", "height", "loras", "lora", "mask_blur", "memory", "request_id"}
KWARGS_CHARS = 64 * 1024
"""As long as the field of a form may be."""
PICTURES_IN = (
    *("image", "images", "url", "mask", "mask_image", "markup", "file", "files"),
    *("ref_images", "reference_image", "reference_images"),
)
FOREIGN_PICTURES = (
    *("image_url", "image_urls", "input_image", "input_images", "init_image", "init_images", "source_image"),
    *("control_image", "extra_images", "mask_url", "mask_image_url", "image_base64", "mask_base64", "mask_b64"),
)
"""What pictures are called elsewhere, in whatever shape: a request without them would be another one."""

Prompt = Annotated[str, Field(max_length=PROMPT_CHARS), AfterValidator(not_blank)]


class Drawing(BaseModel):
    """What every route that draws understands, after `unfolded`. Fields it does not name are ignored.

    Source: `ImageGenerateParams` of openai 3.52; `seed` and below: the dialects of Xinference, LocalAI, vLLM-Omni,
    SGLang-diffusion and mlx-openai-server.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    events: ClassVar[str] = "image_generation"
    """What the events of its stream begin with."""

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
    user: SaidText = None
    safety_identifier: SaidText = None
    stream: Annotated[bool, Field(strict=True)] = False
    partial_images: Annotated[Whole, Field(ge=0, le=3)] = 0

    seed: Seeds | None = None
    steps: Whole | None = Field(None, validation_alias=AliasChoices(*NAMES["steps"]))
    guidance: Number | None = Field(None, validation_alias=AliasChoices(*NAMES["guidance"]))
    negative_prompt: str | None = None
    width: Whole | None = None
    height: Whole | None = None
    loras: Loras = Field(default=[], validation_alias=AliasChoices(*NAMES["loras"]))
    memory: MemoryCheck = "check"
    """Ours: "try" draws what seems not to fit into memory."""
    request_id: Annotated[str, Field(max_length=128)] | None = None
    """The client's own name for the request, by which it asks for progress (Xinference)."""

    @property
    def quality_word(self) -> str:
        """The word of today's API for it; the steps, and not this, decide how good a picture gets."""
        return {"standard": "medium", "hd": "high"}.get(self.quality or "auto", self.quality or "auto")

    @property
    def effective_safety_identifier(self) -> str | None:
        """What answers repeat. Source: openai 3.52, `ImagesResponse` and `ImageGenCompletedEvent`."""
        return self.safety_identifier or self.user or None

    @property
    def rows(self) -> frozenset[ResponseFormat]:
        """Which keys of a data row are filled.

        Said nothing, a client gets both: LangChain reads `url`, the AI SDK `b64_json`. Open WebUI sends no
        response_format for gpt-image names, reads `url` first and refuses one of a private network.
        """
        if self.response_format is not None:
            return frozenset({self.response_format})
        if self.model is not None and GPT_IMAGE.match(self.model):
            return frozenset({"b64_json"})
        return frozenset({"url", "b64_json"})

    @property
    def size_px(self) -> tuple[int | None, int | None]:
        """Width and height that were asked for; the words of their own go before `size`."""
        width_px, height_px = self.size or (None, None)
        return (
            self.width if self.width is not None else width_px,
            self.height if self.height is not None else height_px,
        )


class Generation(Drawing):
    """POST /v1/images/generations."""


class FromPictures(Drawing):
    """What the routes that take pictures understand besides."""

    denoise: Number | None = Field(None, validation_alias=AliasChoices(*NAMES["denoise"]))
    mask_blur: Annotated[Number, Field(ge=0, le=256)] | None = None
    """Radius in pixels by which the edge of the mask is softened (Xinference)."""


class Edit(FromPictures):
    """POST /v1/images/edits. Source: `ImageEditParams` of openai 3.52."""

    events: ClassVar[str] = "image_edit"

    input_fidelity: Literal["high", "low"] | None = None


class Variation(FromPictures):
    """POST /v1/images/variations. Source: `ImageCreateVariationParams` of openai 3.52; `prompt` is Xinference's."""

    prompt: Annotated[str, Field(max_length=PROMPT_CHARS)] = ""
    stream: NoStream = False


class Inpainting(FromPictures):
    """POST /v1/images/inpainting of Xinference and LocalAI."""

    stream: NoStream = False


def unfolded(body: object) -> dict[str, Any]:
    """The body with null and "" as unset, and Xinference's `kwargs` (a JSON string) on the top level.

    What stands on the top level itself goes first. Raises: InvalidRequest.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    said = {key: value for key, value in body.items() if value is not None and (value != "" or key == "prompt")}
    kwargs = kwargs_of(said.pop("kwargs", {}))
    check_unknown_pictures(kwargs, IN_KWARGS)
    for key in FOREIGN_PICTURES:
        if said.get(key) or kwargs.get(key):
            raise InvalidRequest("A picture is sent as image, mask or reference_image.", param=key)
    for key, value in kwargs.items():
        word = next((names for names in NAMES.values() if key in names), (key,))
        if key in PICTURES_IN and value:
            raise InvalidRequest("Pictures are sent as files, not in kwargs.", param=key)
        if key in IN_KWARGS and value is not None and not any(name in said for name in word if name != "size"):
            said[key] = value
    return said


def without_pictures(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a route that draws from text alone. Raises: InvalidRequest."""
    for key in PICTURES_IN:
        if body.get(key):
            raise InvalidRequest("This route draws from text alone: use /v1/images/edits.", param=key)
    return body


def kwargs_of(value: object) -> dict[str, Any]:
    """Source: `kwargs` of Xinference's TextToImageRequest. Raises: InvalidRequest."""
    if isinstance(value, str):
        if len(value) > KWARGS_CHARS:
            raise InvalidRequest(f"kwargs may have at most {KWARGS_CHARS} characters.", param="kwargs")
        try:
            value = parse_json(value.encode())
        except InvalidRequest as error:
            raise InvalidRequest("kwargs must be a JSON object in a string.", param="kwargs") from error
    if not isinstance(value, dict):
        raise InvalidRequest("kwargs must be a JSON object in a string.", param="kwargs")
    return value


def known_model(name: str | None, served: Container[str]) -> str | None:
    """The name for the core to look up; None, the default model, for names that are OpenAI's and not served."""
    if name is None or name in served or not BORROWED_NAME.fullmatch(name):
        return name
    return None


def to_request(asked: Drawing, served: Container[str]) -> GenerationRequest:
    """All but the pictures; `served` holds the names and aliases of the library."""
    width_px, height_px = asked.size_px
    return GenerationRequest(
        prompt=asked.prompt,
        model=known_model(asked.model, served),
        negative_prompt=asked.negative_prompt,
        width_px=width_px,
        height_px=height_px,
        steps=asked.steps,
        guidance=asked.guidance,
        seed=None if isinstance(asked.seed, tuple) else asked.seed,
        seeds=asked.seed if isinstance(asked.seed, tuple) else (),
        count=asked.n,
        loras=tuple(asked.loras),
        previews=asked.partial_images if asked.stream else None,
        memory=asked.memory,
    )


@contextmanager
def client_param_names(sent: Container[str]) -> Iterator[None]:
    """Refusals of the core name the parameter as this client spelled it; `sent` holds the names it used."""
    try:
        yield
    except InvalidRequest as error:
        names = NAMES.get(error.param or "", ())
        error.param = next((name for name in names if name in sent), names[0] if names else error.param)
        raise
