"""Single values as clients of /v1 write them. Pure: each parser takes one value and refuses it with a sentence."""

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

PictureFormat = Literal["png", "jpeg", "webp"]
ResponseFormat = Literal["url", "b64_json"]


def refusal(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{sentence}", {"sentence": sentence})


def not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise refusal("The prompt is empty.")
    return prompt


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise refusal("Send a number, not true or false.")
    return value


def _background(value: object) -> object:
    if value == "transparent":
        raise refusal("This gateway draws opaque pictures only. Use 'opaque' or 'auto'.")
    return value


def _format(value: object) -> object:
    if value in ("gif", "svg"):
        raise refusal(f"{value} pictures cannot be drawn here. Use png, jpeg or webp.")
    return "jpeg" if value == "jpg" else value


def parse_size(value: object) -> tuple[int, int] | None:
    """`WxH`, `W*H`, `W,H` or `W H` as width and height in pixels; None for `auto` and `original`.

    Raises: PydanticCustomError. Source: openai images.generate `size`; Xinference's size parser.
    """
    if isinstance(value, str):
        if value.strip().lower() in NO_SIZE:
            return None
        if found := SIZE.fullmatch(value):
            return int(found[1]), int(found[2])
    raise refusal("size must be 'auto' or WIDTHxHEIGHT, for example 512x512.")


def _seeds(value: object) -> object:
    """One seed, or a list of them, one a picture (Xinference, SGLang)."""
    if isinstance(value, list) and value:
        return tuple(_seed(seed) for seed in value)
    return _seed(value)


def _seed(value: object) -> int:
    if (isinstance(value, str) and WHOLE.fullmatch(value.strip())) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if type(value) is not int:
        raise refusal("A seed is a whole number, or a list of them, one a picture.")
    return value


def _loras(value: object) -> object:
    """One LoRA or several, each a name or {name|path, scale} (vLLM-Omni)."""
    loras = []
    for lora in value if isinstance(value, list) else [value]:
        said = lora if isinstance(lora, dict) else {"name": lora}
        name, scale = said.get("name") or said.get("path"), said.get("scale")
        if not isinstance(name, str):
            raise refusal("A LoRA is a name, or an object with a name.")
        try:
            loras.append(Lora.model_validate({"name": name} if scale is None else {"name": name, "scale": scale}))
        except ValidationError:
            raise refusal("The scale of a LoRA is a number.") from None
    return loras


def _no_stream(value: object) -> object:
    if value is not False:
        raise refusal("This route answers whole; /v1/images/edits can stream.")
    return value


def _not_here(sentence: str, *, json_type: Any) -> BeforeValidator:
    """`json_type` is what OpenAI's clients may send; generators of clients cannot do with a type that is only null."""

    def refuse(value: object) -> object:
        if value is None or value == {}:
            return None
        raise refusal(sentence)

    return BeforeValidator(refuse, json_schema_input_type=json_type | None)


def _text_or_nothing(value: object) -> str | None:
    return value[:IDENTIFIER_CHARS] if isinstance(value, str) else None


Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Size = Annotated[tuple[int, int] | None, BeforeValidator(parse_size, json_schema_input_type=str)]
Seeds = Annotated[int | tuple[int, ...], BeforeValidator(_seeds, json_schema_input_type=int | list[int] | str)]
Loras = Annotated[list[Lora], BeforeValidator(_loras, json_schema_input_type=list[Lora | str] | Lora | str)]
OutputFormat = Annotated[PictureFormat, BeforeValidator(_format)]
Background = Annotated[Literal["opaque", "auto"], BeforeValidator(_background)]
NoFrames = Annotated[None, _not_here("Animated pictures cannot be drawn here.", json_type=int)]
NoVector = Annotated[None, _not_here("Vector pictures cannot be drawn here.", json_type=dict[str, Any])]
SaidText = Annotated[str | None, BeforeValidator(_text_or_nothing, json_schema_input_type=str | None)]
"""A text that is only repeated; what is no text is ignored."""
NoStream = Annotated[Literal[False], BeforeValidator(_no_stream)]
