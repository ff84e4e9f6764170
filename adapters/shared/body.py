"""Bodies and queries of requests, parsed into payload models within bounds; input images, checked and stored."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cache
from typing import TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError
from starlette.requests import Request

from adapters.shared.context import core_of, share_of
from gateway.errors import InvalidRequest, clip
from gateway.http.text_bounds import check_texts
from gateway.http.unknown_images import unknown_images
from gateway.images.codec import MAX_IMAGE_BYTES, base64_image, check_image
from gateway.strict_json import parse_async

DETAILS = 10
IMAGE_CHARS = MAX_IMAGE_BYTES * 3 // 2
"""Characters of an image in base64, which takes a third more than the file, with line ends."""
PICTURES = (
    *("image", "images", "init_image", "init_images", "extra_images", "reference_images", "mask", "mask_image"),
    *("input_image", "effective_region_mask", "firstpass_image", "latent_mask", "data", "video"),
)
PROMPTS = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
PROMPT_CHARS = 64 * 1024
"""Characters of a prompt as it is sent, with its LoRA tags, which are removed before the prompt's own bound applies."""
LONGER = {
    **dict.fromkeys(PICTURES, IMAGE_CHARS),
    **dict.fromkeys(PROMPTS, PROMPT_CHARS),
    "infotext": 256 * 1024,
}
"""Fields of all protocols that may be longer than a name, with the most characters of each."""
M = TypeVar("M", bound=BaseModel)


async def parse(model: type[M], request: Request) -> M:
    """The JSON body as a payload model.

    Raises: MalformedBody; InvalidRequest whose `details["errors"]` lists {loc, msg, type}.
    """
    prompt_chars = max(PROMPT_CHARS, 2 * core_of(request).settings.generation.max_prompt_bytes)
    return validated(model, await parse_async(await body_of(request)), prompt_chars=prompt_chars)


def query(model: type[M], request: Request) -> M:
    """The query string as a payload model; of equal names the last one counts. Raises: InvalidRequest."""
    return validated(model, dict(request.query_params))


async def body_of(request: Request) -> bytes:
    """The whole body, once: `request` drops it then, because what is made of it is as large."""
    body = await request.body()
    request._body = b""
    return body


def let_go(request: Request, body: object = None) -> None:
    """Give the memory of the body back, except for the text in `body`. Call it once the images are stored."""
    request.state.body_memory.keep(_text_bytes(body))


def _text_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_text_bytes(item) for item in value.values())
    return sum(_text_bytes(item) for item in value) if isinstance(value, list | tuple) else 0


def validated(model: type[M], value: object, *, prompt_chars: int = PROMPT_CHARS) -> M:
    """The payload model of a body. Texts are bounded before anything reads them; unknown fields are not read.

    An image in an unknown field is refused: without it, another image would be drawn. A model whose
    `tells_unknown_images` is set reports such an image itself as an adjustment.
    Raises: InvalidRequest naming the first field at fault; the input itself is never repeated.
    """
    if isinstance(value, dict):
        if not getattr(model, "tells_unknown_images", False):
            check_unknown_images(value, names_of(model))
        longer = LONGER if prompt_chars == PROMPT_CHARS else LONGER | dict.fromkeys(PROMPTS, prompt_chars)
        check_texts({name: inner for name, inner in value.items() if name in names_of(model)}, longer)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = [
            {"loc": [str(part)[:64] for part in item["loc"]], "msg": item["msg"][:200], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:DETAILS]
        ]
        param = clip(".".join(str(part) for part in errors[0]["loc"])) or None
        message = f"{param}: {errors[0]['msg']}" if param else str(errors[0]["msg"])
        raise InvalidRequest(message, param=param, details={"errors": errors}) from None


def check_unknown_images(body: Mapping[str, object], known: Container[str]) -> None:
    """Raises: InvalidRequest for an image in a field that is not `known`."""
    for name in unknown_images(body, known):
        raise InvalidRequest(f"There is no field '{clip(name)}' for a picture here.", param=clip(name))


@cache
def names_of(model: type[BaseModel]) -> frozenset[str]:
    """Every key of a body that a model reads."""
    names = set(model.model_fields)
    for info in model.model_fields.values():
        if isinstance(info.validation_alias, AliasChoices):
            names.update(choice for choice in info.validation_alias.choices if isinstance(choice, str))
    return frozenset(names)


async def store_input_image(request: Request, text: str, param: str) -> str:
    """Check and store an image in base64 or a data URL; returns its name in the canonical request.

    Raises: InvalidRequest, RemoteImagesDisabled, TooManyFiles, Unavailable, StorageFull.
    """
    core, share = core_of(request), share_of(request)
    data = await core.files.read(share, base64_image, text, param)
    return await core.service.inputs.keep(await check_image(data, core.decoder, param, share), share)
