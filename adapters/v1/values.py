"""The types of single fields of /v1. Pure: each parser takes one value and refuses it with a sentence."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from engine.protocol import Lora

PROMPT_CHARS = 32_000
SIZE = re.compile(r"\s{0,64}([0-9]{1,9})(?:\s{0,64}[xX*×,]\s{0,64}|\s{1,64})([0-9]{1,9})\s{0,64}")
WHOLE = re.compile(r"-?[0-9]{1,20}")
IDENTIFIER_CHARS = 512
NO_SIZE = ("auto", "original")

ImageFormat = Literal["png", "jpeg", "webp"]
ResponseFormat = Literal["url", "b64_json"]


def refusal(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{sentence}", {"sentence": sentence})


def check_not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise refusal("The prompt is empty.")
    return prompt


def _check_no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise refusal("Send a number, not true or false.")
    return value


def _check_background(value: object) -> object:
    if value == "transparent":
        raise refusal("This gateway draws opaque pictures only. Use 'opaque' or 'auto'.")
    return value


def _parse_format(value: object) -> object:
    if value in ("gif", "svg"):
        raise refusal(f"{value} pictures cannot be drawn here. Use png, jpeg or webp.")
    return "jpeg" if value == "jpg" else value


def parse_size(value: object) -> tuple[int, int] | None:
    """Width and height in pixels of `WxH`, `W*H`, `W,H` or `W H`; None for `auto` and `original`.

    Raises: PydanticCustomError. Source: openai images.generate `size`; Xinference's size parser.
    """
    if isinstance(value, str):
        if value.strip().lower() in NO_SIZE:
            return None
        if found := SIZE.fullmatch(value):
            return int(found[1]), int(found[2])
    raise refusal("size must be 'auto' or WIDTHxHEIGHT, for example 512x512.")


def _parse_seeds(value: object) -> object:
    """One seed, or a list with one seed for each image (Xinference, SGLang)."""
    if isinstance(value, list) and value:
        return tuple(_parse_seed(seed) for seed in value)
    return _parse_seed(value)


def _parse_seed(value: object) -> int:
    if (isinstance(value, str) and WHOLE.fullmatch(value.strip())) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if type(value) is not int:
        raise refusal("A seed is a whole number, or a list of them, one a picture.")
    return value


def _parse_loras(value: object) -> object:
    """One LoRA or several, each a name or {name|path, scale} (vLLM-Omni)."""
    loras = []
    for lora in value if isinstance(value, list) else [value]:
        fields = lora if isinstance(lora, dict) else {"name": lora}
        name, scale = fields.get("name") or fields.get("path"), fields.get("scale")
        if not isinstance(name, str):
            raise refusal("A LoRA is a name, or an object with a name.")
        try:
            loras.append(Lora.model_validate({"name": name} if scale is None else {"name": name, "scale": scale}))
        except ValidationError:
            raise refusal("The scale of a LoRA is a number.") from None
    return loras


def _parse_pages(value: object) -> object:
    """One page or a list of pages. Source: `normalize_pages` of Xinference."""
    pages = value if isinstance(value, list) else [value]
    if any(isinstance(page, bool | float) for page in pages):
        raise refusal("pages is a page number, counted from 1, or a list of them.")
    return pages


def _check_no_stream(value: object) -> object:
    if value is not False:
        raise refusal("This route answers whole; /v1/images/edits can stream.")
    return value


def _unsupported(sentence: str, *, json_type: Any) -> BeforeValidator:
    """A validator that refuses every value but null and {}.

    `json_type` is what OpenAI's clients may send: generators of clients cannot handle a type that is only null.
    """

    def refuse(value: object) -> object:
        if value is None or value == {}:
            return None
        raise refusal(sentence)

    return BeforeValidator(refuse, json_schema_input_type=json_type | None)


def _clip_text(value: object) -> str | None:
    return value[:IDENTIFIER_CHARS] if isinstance(value, str) else None


Whole = Annotated[int, BeforeValidator(_check_no_bool)]
Number = Annotated[float, BeforeValidator(_check_no_bool), Field(allow_inf_nan=False)]
Size = Annotated[tuple[int, int] | None, BeforeValidator(parse_size, json_schema_input_type=str)]
Seeds = Annotated[int | tuple[int, ...], BeforeValidator(_parse_seeds, json_schema_input_type=int | list[int] | str)]
Loras = Annotated[list[Lora], BeforeValidator(_parse_loras, json_schema_input_type=list[Lora | str] | Lora | str)]
Pages = Annotated[tuple[int, ...], BeforeValidator(_parse_pages, json_schema_input_type=int | list[int])]
OutputFormat = Annotated[ImageFormat, BeforeValidator(_parse_format)]
Background = Annotated[Literal["opaque", "auto"], BeforeValidator(_check_background)]
NoFrames = Annotated[None, _unsupported("Animated pictures cannot be drawn here.", json_type=int)]
NoVector = Annotated[None, _unsupported("Vector pictures cannot be drawn here.", json_type=dict[str, Any])]
EchoText = Annotated[str | None, BeforeValidator(_clip_text, json_schema_input_type=str | None)]
"""A text that answers repeat and nothing reads; any other value is ignored."""
NoStream = Annotated[Literal[False], BeforeValidator(_check_no_stream)]
