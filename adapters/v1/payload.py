"""The payload of a request: fields and images, whether it came as multipart or JSON. Opens no image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from starlette.datastructures import UploadFile
from starlette.requests import Request

from adapters.shared.body import body_of, check_unknown_images
from adapters.shared.context import core_of, share_of
from adapters.shared.forms import Part, form_of, image_in
from adapters.v1.request_schemas import NAMES
from gateway.errors import InvalidRequest
from gateway.images.codec import base64_image
from gateway.strict_json import parse as parse_json
from gateway.strict_json import parse_async

Role = Literal["image", "reference", "mask", "markup"]

IMAGE_ROLES: dict[str, Role] = {
    **dict.fromkeys(("image", "images", "url"), "image"),
    **dict.fromkeys(("reference_image", "reference_images", "ref_images"), "reference"),
    **dict.fromkeys(("mask", "mask_image"), "mask"),
    "markup": "markup",
}
"""Fields that hold images, with or without `[]` behind their names. Source: OpenAI, xinference_client, vLLM-Omni,
SGLang."""
IMAGE_NAMES = (
    *("image", "images", "url", "mask", "mask_image", "markup", "file", "files"),
    *("ref_images", "reference_image", "reference_images"),
)
"""Fields that hold images where images are not taken: in `kwargs`, and where a route draws from text alone."""
FOREIGN_IMAGE_NAMES = (
    *("image_url", "image_urls", "input_image", "input_images", "init_image", "init_images", "source_image"),
    *("control_image", "extra_images", "mask_url", "mask_image_url", "image_base64", "mask_base64", "mask_b64"),
)
"""Fields that hold images in other APIs: a request without them would be another request, so they are refused."""
IN_KWARGS = {name for word in ("seed", "steps", "guidance", "negative_prompt", "denoise") for name in NAMES[word]}
IN_KWARGS |= {"width", "height", "loras", "lora", "mask_blur", "memory", "request_id", "scheduler"}
IN_KWARGS |= {*NAMES["sampling.sampler"]}
KWARGS_CHARS = 64 * 1024
"""As long as the field of a form may be."""

IMAGE_KEYS = ("image_url", "url", "b64_json")
"""Keys of an object that is an image."""
MAX_FILES = 20
MAX_FIELDS = 64
FIELD_BYTES = 64 * 1024
FILE_NAME_BYTES = 255
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")

_CHARSET = re.compile(r';\s{0,64}charset\s{0,64}=\s{0,64}"?([^";,\s]{0,64})', re.IGNORECASE)
_KEYED = re.compile(r"([^\[\]]{1,128})\[([^\[\]]{1,128})\]")
_LISTED = re.compile(r"\[[0-9]{0,3}\]$")


@dataclass(frozen=True, slots=True)
class InputImage:
    """The bytes of an image as the client sent them, and the field that held them."""

    data: bytes
    param: str


@dataclass(frozen=True, slots=True)
class Payload:
    """`fields` are those of the JSON object without its images; from a form, scalars are text."""

    fields: dict[str, Any]
    images: dict[Role, list[InputImage]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every parameter that the client sent."""
        return frozenset(self.fields) | {image.param for images in self.images.values() for image in images}

    def release_images(self) -> None:
        """Forget the bytes of the images, which are stored by now, but not the fields that held them."""
        for images in self.images.values():
            images[:] = [replace(image, data=b"") for image in images]


# ---- fields ----------------------------------------------------------------------------------------


def flatten(body: object) -> dict[str, Any]:
    """The fields without null and "", and with those of Xinference's `kwargs` (a JSON string) on the top level.

    A field of the top level goes before one of `kwargs`. Raises: InvalidRequest.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    fields = {key: value for key, value in body.items() if value is not None and (value != "" or key == "prompt")}
    kwargs = parse_kwargs(fields.pop("kwargs", {}))
    check_unknown_images(kwargs, IN_KWARGS)
    for key in FOREIGN_IMAGE_NAMES:
        if fields.get(key) or kwargs.get(key):
            raise InvalidRequest("A picture is sent as image, mask or reference_image.", param=key)
    for key, value in kwargs.items():
        word = next((names for names in NAMES.values() if key in names), (key,))
        if key in IMAGE_NAMES and value:
            raise InvalidRequest("Pictures are sent as files, not in kwargs.", param=key)
        if key in IN_KWARGS and value is not None and not any(name in fields for name in word if name != "size"):
            fields[key] = value
    return fields


async def read_text_fields(request: Request) -> dict[str, Any]:
    """The fields of a JSON body without images, for a route that draws from text alone. Raises: InvalidRequest."""
    return check_text_only(flatten(await parse_async(await request.body())))


def check_text_only(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields themselves. Raises: InvalidRequest for an image among them."""
    for key in IMAGE_NAMES:
        if fields.get(key):
            raise InvalidRequest("This route draws from text alone: use /v1/images/edits.", param=key)
    return fields


def parse_kwargs(value: object) -> dict[str, Any]:
    """The object in `kwargs`. Source: `kwargs` of Xinference's TextToImageRequest. Raises: InvalidRequest."""
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


# ---- fields and images -----------------------------------------------------------------------------


async def read_payload(request: Request) -> Payload:
    """The payload of a multipart form or a JSON body. Raises: InvalidRequest, RemoteImagesDisabled."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_form(request)
    body = await parse_async(await body_of(request))
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object or a multipart form.")
    return await _separate_images(request, body)


async def _read_form(request: Request) -> Payload:
    """Source: openai 3.52 and xinference_client 4.1 on the wire: `name[]` is a list, `name[key]` an object."""
    charset = _CHARSET.search(request.headers["content-type"])
    if charset is not None and charset[1].lower() not in CHARSETS:
        raise InvalidRequest("A form must be UTF-8.")
    bounds = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "field_bytes": FIELD_BYTES}
    async with form_of(request, lambda name: _LISTED.sub("", name) in IMAGE_ROLES, **bounds) as parts:
        fields, files = await _read_parts(request, parts)
    payload = await _separate_images(request, fields)
    for image in files:
        payload.images.setdefault(IMAGE_ROLES[image.param], []).append(image)
    return payload


async def _read_parts(request: Request, parts: Iterable[Part]) -> tuple[dict[str, Any], list[InputImage]]:
    fields: dict[str, Any] = {}
    files = []
    for part_name, value in parts:
        name = _LISTED.sub("", _check_text(part_name))
        if isinstance(value, UploadFile):
            if len((value.filename or "").encode(errors="replace")) > FILE_NAME_BYTES:
                raise InvalidRequest(f"A file name may have at most {FILE_NAME_BYTES} bytes.", param=name[:64])
            if name not in IMAGE_ROLES:
                raise InvalidRequest("This field takes no file.", param=name[:64])
            files.append(InputImage(await image_in(request, value, name), name))
        elif keyed := _KEYED.fullmatch(name):
            inner = fields.setdefault(keyed[1], {})
            if not isinstance(inner, dict):
                raise InvalidRequest(f"{keyed[1]} was sent as a value and as an object.", param=keyed[1])
            inner[keyed[2]] = _check_text(value)
        elif name != part_name or name in fields:
            earlier = fields.get(name, [])
            fields[name] = [*(earlier if isinstance(earlier, list) else [earlier]), _check_text(value)]
        else:
            fields[name] = _check_text(value)
    if (stream := str(fields.get("stream", "")).lower()) in ("true", "false"):
        fields["stream"] = stream == "true"
    return fields, files


def _check_text(text: str) -> str:
    """The text itself. Raises: InvalidRequest for text that is refused in JSON, too (S-12)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The form holds text that is not valid UTF-8.") from None
    if "\0" in text:
        raise InvalidRequest("The form holds a NUL character.")
    return text


async def _separate_images(request: Request, body: dict[str, Any]) -> Payload:
    """Raises: InvalidRequest, RemoteImagesDisabled, TooManyFiles, Unavailable."""
    if not any(name in body for name in IMAGE_ROLES):
        return Payload(body)
    return await core_of(request).files.run(share_of(request), _split, body)


def _split(body: dict[str, Any]) -> Payload:
    """The payload of a JSON object, its images decoded from base64. Takes long: call it in a thread."""
    payload = Payload({name: value for name, value in body.items() if name not in IMAGE_ROLES})
    for name, role in IMAGE_ROLES.items():
        for text in _texts_of(body.get(name), name):
            payload.images.setdefault(role, []).append(InputImage(base64_image(text, name), name))
            if len(payload.images[role]) > MAX_FILES:
                raise InvalidRequest(f"At most {MAX_FILES} pictures can be sent.", param=name)
    return payload


def _texts_of(value: object, param: str) -> Iterator[str]:
    """One image or several as base64 or data URLs. Raises: InvalidRequest for any other value, at any depth."""
    if isinstance(value, list):
        yield from (_text_of(item, param) for item in value)
    elif value is not None and value != "":
        yield _text_of(value, param)


def _text_of(item: object, param: str) -> str:
    """Source: `images: [{image_url | file_id}]` of OpenAI's JSON edits, where image_url may be an object with `url`;
    `{b64_json}` and `{url}` as its answers have them."""
    if isinstance(item, dict):
        if item.get("file_id"):
            raise InvalidRequest("This gateway keeps no files: send the picture as a data URL.", param=param)
        values = [item[key] for key in IMAGE_KEYS if item.get(key) is not None]
        item = values[0] if len(values) == 1 else None
        if isinstance(item, dict):
            item = item.get("url")
    if not isinstance(item, str) or not item:
        sentence = "A picture is a data URL, base64, or an object with one of image_url, url and b64_json."
        raise InvalidRequest(sentence, param=param)
    return item
