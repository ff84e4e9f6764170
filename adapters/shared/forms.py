"""Multipart forms: text fields and files. Knows no field by name."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from adapters.shared.context import core_of, share_of
from gateway.errors import InvalidRequest
from gateway.images.codec import base64_image

Part = tuple[str, str | UploadFile]

_TEXT = re.compile(rb"[\t\n\r -~]++")
_HEAD_BYTES = 4096


class _Parser(MultiPartParser):
    """A parser that keeps files in memory, where they are counted (`gateway.access.memory`), without descriptors."""

    spool_max_size = 0
    is_image: Callable[[str], bool]

    def on_headers_finished(self) -> None:
        disposition = self._current_part.content_disposition or b""
        _, options = parse_options_header(disposition)
        if b"filename" not in options and self.is_image(options.get(b"name", b"").decode("utf-8", "replace")):
            self._current_part.content_disposition = disposition + b'; filename=""'
        super().on_headers_finished()


@asynccontextmanager
async def form_of(
    request: Request, is_image: Callable[[str], bool], *, max_files: int, max_fields: int, field_bytes: int
) -> AsyncIterator[list[Part]]:
    """The parts of a form in order; its files last as long as the context.

    An image field is a file, with or without a file name, and may be as long as the body.
    A file without name and bytes is left out: browsers send it where none was chosen. Raises: InvalidRequest.
    """
    parser = _Parser(
        request.headers, request.stream(), max_files=max_files, max_fields=max_fields, max_part_size=field_bytes
    )
    parser.is_image = is_image
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(error.message) from None
    try:
        yield [part for part in form.multi_items() if not _is_none(part[1])]
    finally:
        await form.close()


def _is_none(value: str | UploadFile) -> bool:
    return isinstance(value, UploadFile) and not value.filename and not value.size


async def image_in(request: Request, file: UploadFile, param: str) -> bytes:
    """The bytes of an image sent as a file; without a file name it may also be base64 or a data URL.

    Raises: InvalidRequest, RemoteImagesDisabled, TooManyFiles, Unavailable.
    """
    data = await file.read()
    if file.filename or not _TEXT.fullmatch(data[:_HEAD_BYTES]):
        return data
    text = data.decode("latin-1")
    return await core_of(request).files.read(share_of(request), base64_image, text, param)


async def only_image(request: Request, parts: Iterable[Part], param: str = "image") -> bytes:
    """The one image of a form. Raises: InvalidRequest, and as `image_in`."""
    for name, value in parts:
        if name == param and isinstance(value, UploadFile):
            return await image_in(request, value, param)
    raise InvalidRequest(f"Send the picture as a file named {param}.", param=param)
