"""What a request that may carry pictures holds: multipart and JSON become the same two things. Opens no picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from starlette.datastructures import UploadFile
from starlette.requests import Request

from adapters.shared.body import body_of
from adapters.shared.context import core_of, share_of
from adapters.shared.forms import Part, form_of, picture_in
from gateway.errors import InvalidRequest
from gateway.images.codec import base64_picture
from gateway.strict_json import parse_async

Role = Literal["image", "reference", "mask", "markup"]

PICTURES: dict[str, Role] = {
    **dict.fromkeys(("image", "images", "url"), "image"),
    **dict.fromkeys(("reference_image", "reference_images", "ref_images"), "reference"),
    **dict.fromkeys(("mask", "mask_image"), "mask"),
    "markup": "markup",
}
"""Fields that hold pictures, `[]` behind them or not. Source: OpenAI, xinference_client, vLLM-Omni, SGLang."""

SHAPES = ("image_url", "url", "b64_json")
"""Keys of an object that is a picture."""
MAX_FILES = 20
MAX_FIELDS = 64
FIELD_BYTES = 64 * 1024
FILE_NAME_BYTES = 255
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")

_CHARSET = re.compile(r';\s{0,64}charset\s{0,64}=\s{0,64}"?([^";,\s]{0,64})', re.IGNORECASE)
_KEYED = re.compile(r"([^\[\]]{1,128})\[([^\[\]]{1,128})\]")
_LISTED = re.compile(r"\[[0-9]{0,3}\]$")


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of a picture as sent, and the field they came in."""

    data: bytes
    param: str


@dataclass(frozen=True, slots=True)
class Sent:
    """`fields` are what JSON would have held without its pictures; from a form, scalars are text."""

    fields: dict[str, Any]
    pictures: dict[Role, list[Picture]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every parameter the client named."""
        return frozenset(self.fields) | {p.param for found in self.pictures.values() for p in found}

    def let_go(self) -> None:
        """Forget the bytes of the pictures, which are stored by now, but not in which fields they came."""
        for found in self.pictures.values():
            found[:] = [replace(picture, data=b"") for picture in found]


async def sent(request: Request) -> Sent:
    """The body, whichever of the two it is. Raises: InvalidRequest, RemoteImagesDisabled."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request)
    body = await parse_async(await body_of(request))
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object or a multipart form.")
    return await _apart(request, body)


async def _from_form(request: Request) -> Sent:
    """Source: openai 3.52 and xinference_client 4.1 on the wire: `name[]` is a list, `name[key]` an object."""
    charset = _CHARSET.search(request.headers["content-type"])
    if charset is not None and charset[1].lower() not in CHARSETS:
        raise InvalidRequest("A form must be UTF-8.")
    bounds = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "field_bytes": FIELD_BYTES}
    async with form_of(request, lambda name: _LISTED.sub("", name) in PICTURES, **bounds) as parts:
        fields, files = await _read(request, parts)
    found = await _apart(request, fields)
    for picture in files:
        found.pictures.setdefault(PICTURES[picture.param], []).append(picture)
    return found


async def _read(request: Request, parts: Iterable[Part]) -> tuple[dict[str, Any], list[Picture]]:
    fields: dict[str, Any] = {}
    files = []
    for sent_name, value in parts:
        name = _LISTED.sub("", _clean(sent_name))
        if isinstance(value, UploadFile):
            if len((value.filename or "").encode(errors="replace")) > FILE_NAME_BYTES:
                raise InvalidRequest(f"A file name may have at most {FILE_NAME_BYTES} bytes.", param=name[:64])
            if name not in PICTURES:
                raise InvalidRequest("This field takes no file.", param=name[:64])
            files.append(Picture(await picture_in(request, value, name), name))
        elif keyed := _KEYED.fullmatch(name):
            inner = fields.setdefault(keyed[1], {})
            if not isinstance(inner, dict):
                raise InvalidRequest(f"{keyed[1]} was sent as a value and as an object.", param=keyed[1])
            inner[keyed[2]] = _clean(value)
        elif name != sent_name or name in fields:
            earlier = fields.get(name, [])
            fields[name] = [*(earlier if isinstance(earlier, list) else [earlier]), _clean(value)]
        else:
            fields[name] = _clean(value)
    if (stream := str(fields.get("stream", "")).lower()) in ("true", "false"):
        fields["stream"] = stream == "true"
    return fields, files


def _clean(text: str) -> str:
    """Raises: InvalidRequest for what JSON would not be let in with either (S-12)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The form holds text that is not valid UTF-8.") from None
    if "\0" in text:
        raise InvalidRequest("The form holds a NUL character.")
    return text


async def _apart(request: Request, body: dict[str, Any]) -> Sent:
    """Raises: InvalidRequest, RemoteImagesDisabled, TooManyFiles, Unavailable."""
    if not any(name in body for name in PICTURES):
        return Sent(body)
    return await core_of(request).files.run(share_of(request), _split, body)


def _split(body: dict[str, Any]) -> Sent:
    """The pictures out of a body, base64 decoded. Large: call it in a thread."""
    found = Sent({name: value for name, value in body.items() if name not in PICTURES})
    for name, role in PICTURES.items():
        for text in _texts(body.get(name), name):
            found.pictures.setdefault(role, []).append(Picture(base64_picture(text, name), name))
            if len(found.pictures[role]) > MAX_FILES:
                raise InvalidRequest(f"At most {MAX_FILES} pictures can be sent.", param=name)
    return found


def _texts(value: object, param: str) -> Iterator[str]:
    """One picture or several as base64 or data URLs. Raises: InvalidRequest for what is none, at any depth."""
    if isinstance(value, list):
        yield from (_text(item, param) for item in value)
    elif value is not None and value != "":
        yield _text(value, param)


def _text(item: object, param: str) -> str:
    """Source: `images: [{image_url | file_id}]` of OpenAI's JSON edits, where image_url may be an object with `url`;
    `{b64_json}` and `{url}` as its answers have them."""
    if isinstance(item, dict):
        if item.get("file_id"):
            raise InvalidRequest("This gateway keeps no files: send the picture as a data URL.", param=param)
        named = [item[name] for name in SHAPES if item.get(name) is not None]
        item = named[0] if len(named) == 1 else None
        if isinstance(item, dict):
            item = item.get("url")
    if not isinstance(item, str) or not item:
        sentence = "A picture is a data URL, base64, or an object with one of image_url, url and b64_json."
        raise InvalidRequest(sentence, param=param)
    return item
