"""What a client of /v1 may say, and what it means to the core. Pure: knows no connection and no job."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.errors import InvalidRequest
from gateway.request import GenerationRequest
from gateway.strict_json import parse as parse_json

PROMPT_CHARS = 32_000
SIZE = re.compile(r"\s*([0-9]{1,5})\s*[xX*×]\s*([0-9]{1,5})\s*")
NO_SIZE = ("auto", "original")
BORROWED_NAME = re.compile(r"dall-e-[23]|(chat)?gpt-image(-[A-Za-z0-9._-]{1,64})?")
"""Model names of OpenAI's that clients have built in; they mean the default model."""
GPT_IMAGE = re.compile(r"(chat)?gpt-image(-|$)")

PictureFormat = Literal["png", "jpeg", "webp"]
ResponseFormat = Literal["url", "b64_json"]

NAMES: dict[str, tuple[str, ...]] = {
    "seed": ("seed",),
    "steps": ("steps", "num_inference_steps", "step"),
    "guidance": ("guidance", "guidance_scale", "cfg_scale"),
    "negative_prompt": ("negative_prompt",),
    "width": ("width", "size"),
    "height": ("height", "size"),
    "count": ("n",),
    "loras": ("loras", "lora"),
}
"""The core's words for a parameter, and how this prefix's clients spell them, the preferred spelling first."""

IN_KWARGS = {name for word in ("seed", "steps", "guidance", "negative_prompt") for name in NAMES[word]}
IN_KWARGS |= {"width", "height"}
PICTURES_IN = ("image", "images", "mask", "file", "files", "ref_images", "reference_images")


def _refuse(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{sentence}", {"sentence": sentence})


def _not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise _refuse("The prompt is empty.")
    return prompt


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise _refuse("Send a number, not true or false.")
    return value


def _background(value: object) -> object:
    if value == "transparent":
        raise _refuse("This gateway draws opaque pictures only. Use 'opaque' or 'auto'.")
    return value


def _format(value: object) -> object:
    if value in ("gif", "svg"):
        raise _refuse(f"{value} pictures cannot be drawn here. Use png, jpeg or webp.")
    return "jpeg" if value == "jpg" else value


def parse_size(value: object) -> tuple[int, int] | None:
    """`WxH` or `W*H` as width and height in pixels; None for `auto` and `original`.

    Raises: PydanticCustomError. Source: openai images.generate `size`; Xinference's size parser.
    """
    if isinstance(value, str):
        if value.strip().lower() in NO_SIZE:
            return None
        if found := SIZE.fullmatch(value):
            return int(found[1]), int(found[2])
    raise _refuse("size must be 'auto' or WIDTHxHEIGHT, for example 512x512.")


def _one_seed(value: object) -> object:
    """A list of seeds, one a picture, as its first; the core counts on from there (Xinference, SGLang)."""
    if not isinstance(value, list):
        return _no_bool(value)
    if not value or not all(type(seed) is int for seed in value):
        raise _refuse("A list of seeds must hold whole numbers.")
    if any(later != value[0] + i for i, later in enumerate(value)):
        raise _refuse("The seeds of several pictures count up by one: send the first seed alone.")
    return value[0]


def _lora_names(value: object) -> object:
    """One LoRA or several, each a name or {name|path, scale} (vLLM-Omni), as names."""
    names = []
    for lora in value if isinstance(value, list) else [value]:
        name = lora.get("name") or lora.get("path") if isinstance(lora, dict) else lora
        if not isinstance(name, str):
            raise _refuse("A LoRA is a name, or an object with a name.")
        names.append(name)
    return names


Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]


class Generation(BaseModel):
    """POST /v1/images/generations, after `unfolded`. Fields it does not name are ignored.

    Source: `ImageGenerateParams` of openai 3.52; `seed` and below: the dialects of Xinference, LocalAI, vLLM-Omni,
    SGLang-diffusion and mlx-openai-server.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Annotated[str, Field(max_length=PROMPT_CHARS), AfterValidator(_not_blank)]
    model: str | None = None
    n: Annotated[Whole, Field(ge=1, le=10)] | None = None
    size: Annotated[tuple[int, int] | None, BeforeValidator(parse_size)] = None
    response_format: ResponseFormat | None = None
    output_format: Annotated[PictureFormat, BeforeValidator(_format)] = "png"
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = None
    background: Annotated[Literal["opaque", "auto"], BeforeValidator(_background)] | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] | None = None
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["low", "auto"] | None = None
    stream: Annotated[bool, Field(strict=True)] = False
    partial_images: Annotated[Whole, Field(ge=0, le=3)] = 0

    seed: Annotated[int, BeforeValidator(_one_seed)] | None = None
    steps: Whole | None = Field(None, validation_alias=AliasChoices(*NAMES["steps"]))
    guidance: Number | None = Field(None, validation_alias=AliasChoices(*NAMES["guidance"]))
    negative_prompt: str | None = None
    width: Whole | None = None
    height: Whole | None = None
    loras: Annotated[list[str], BeforeValidator(_lora_names)] = Field(
        default=[], validation_alias=AliasChoices(*NAMES["loras"])
    )

    @property
    def quality_word(self) -> str:
        """The word of today's API for it; the steps, and not this, decide how good a picture gets."""
        return {"standard": "medium", "hd": "high"}.get(self.quality or "auto", self.quality or "auto")

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


def unfolded(body: object) -> dict[str, Any]:
    """The body with null and "" as unset, and Xinference's `kwargs` (a JSON string) on the top level.

    What stands on the top level itself goes first. Raises: InvalidRequest.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    said = {key: value for key, value in body.items() if value is not None and (value != "" or key == "prompt")}
    for key, value in _kwargs(said.pop("kwargs", {})).items():
        word = next((names for names in NAMES.values() if key in names), (key,))
        if key in IN_KWARGS and value is not None and not any(name in said for name in word if name != "size"):
            said[key] = value
    for key in PICTURES_IN:
        if said.get(key):
            raise InvalidRequest("This route draws from text alone; it takes no pictures.", param=key)
    return said


def _kwargs(value: object) -> dict[str, Any]:
    """Source: `kwargs` of Xinference's TextToImageRequest."""
    if isinstance(value, str):
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


def to_request(asked: Generation, served: Container[str]) -> GenerationRequest:
    """`served` holds the names and aliases of the library."""
    width_px, height_px = asked.size or (None, None)
    return GenerationRequest(
        prompt=asked.prompt,
        model=known_model(asked.model, served),
        negative_prompt=asked.negative_prompt,
        width_px=asked.width if asked.width is not None else width_px,
        height_px=asked.height if asked.height is not None else height_px,
        steps=asked.steps,
        guidance=asked.guidance,
        seed=asked.seed,
        count=asked.n,
        loras=tuple(asked.loras),
        previews=asked.partial_images if asked.stream else None,
    )


@contextmanager
def named_as_sent(body: Mapping[str, Any]) -> Iterator[None]:
    """Refusals of the core name the parameter as this client spelled it."""
    try:
        yield
    except InvalidRequest as error:
        names = NAMES.get(error.param or "", ())
        error.param = next((name for name in names if name in body), names[0] if names else error.param)
        raise
