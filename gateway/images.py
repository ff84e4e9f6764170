"""Bytes and checked pictures: base64 in, PNG out, files under server-made names. Knows no job and no protocol.

No user text becomes a path or a URL here, and Pillow opens what strangers sent in a child only (`picture_decoder`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import io
import os
import re
import secrets
import stat
import string
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.child import LENGTH
from gateway.disk import sync
from gateway.errors import InvalidRequest, RemoteImagesDisabled, StorageFull, Unavailable

if TYPE_CHECKING:
    from PIL import Image

MAX_PICTURE_BYTES = 20 * 1024 * 1024
DECODE_S = 10.0

Format = Literal["png", "jpeg", "webp"]

_PICTURE_NAME = re.compile(r"[0-9a-f]{32}\.\d{1,9}\.\d{1,9}\.png")
_FILE_NAME = re.compile(r"[0-9a-z][0-9a-z.]{0,127}")
_DATA_URL = re.compile(r"data:([^,;]{0,64})((?:;[^,;]{0,64}){0,4}),", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,31}://", re.IGNORECASE)
_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp"})
_BLANKS = string.whitespace.encode()
_PIECE_CHARS = 4 * 1024 * 1024
_ENVIRONMENT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG")
_ROOT = Path(__file__).parent.parent


def base64_picture(text: str, param: str = "image") -> bytes:
    """The bytes of a picture sent as base64 or as a data URL; white space and missing padding are forgiven.

    Raises: InvalidRequest, RemoteImagesDisabled.
    """
    start = text[:512].lstrip()
    if match := _DATA_URL.match(start):
        if match[1].lower() not in _TYPES or not match[2].lower().endswith(";base64"):
            raise InvalidRequest("A data URL must be base64 of image/png, image/jpeg or image/webp.", param=param)
        text = text[len(text[:512]) - len(start) + match.end() :]
    elif _URL.match(start):
        raise RemoteImagesDisabled(param=param)
    if len(text) // 4 * 3 > MAX_PICTURE_BYTES * 1.1:  # a tenth for line ends
        raise _too_many_bytes(param)
    try:
        data = _decode_base64(_without_blanks(text))
    except (binascii.Error, ValueError):
        raise InvalidRequest("The picture is not valid base64.", param=param) from None
    if not data:
        raise InvalidRequest("The picture is empty.", param=param)
    if len(data) > MAX_PICTURE_BYTES:
        raise _too_many_bytes(param)
    return data


def _too_many_bytes(param: str) -> InvalidRequest:
    return InvalidRequest(f"A picture may have at most {MAX_PICTURE_BYTES} bytes.", param=param)


def _without_blanks(text: str) -> str:
    """In pieces, and not by `split`, whose list of a text of blanks is twenty times as large. Raises: ValueError."""
    pieces = (text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS))
    return "".join(piece.encode("ascii").translate(None, _BLANKS).decode() for piece in pieces)


def _decode_base64(text: str) -> bytes:
    """In pieces: one call for 20 MiB holds the GIL for 50 ms."""
    bare = text.rstrip("=")
    if len(text) - len(bare) > 2:
        raise binascii.Error
    text = bare + "=" * (-len(bare) % 4)
    pieces = (text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS))
    decoded = []
    for at, piece in enumerate(pieces):
        if "=" in piece and (at + 1) * _PIECE_CHARS < len(text):
            raise binascii.Error
        decoded.append(base64.b64decode(piece, validate=True))
    return b"".join(decoded)


class PictureDecoder:
    """The parent's side of `gateway.picture_decoder`: one child, started when first needed, replaced when it fails."""

    def __init__(self, *, deadline_s: float = DECODE_S, command: tuple[str, ...] | None = None) -> None:
        self._deadline_s = deadline_s
        self._command = command or (sys.executable, "-m", "gateway.picture_decoder")
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def normalise(self, data: bytes, param: str = "image") -> bytes:
        """The PNG the child makes of `data`.

        Raises: InvalidRequest; Unavailable when no child can be started.
        """
        async with self._turn:
            child = await self._started()
            try:
                async with asyncio.timeout(self._deadline_s):
                    answer = await self._ask(child, data)
            except TimeoutError:
                await self._end()
                raise InvalidRequest("The picture takes too long to decode.", param=param) from None
            except (OSError, asyncio.IncompleteReadError):
                await self._end()
                raise InvalidRequest("The picture could not be decoded.", param=param) from None
            except BaseException:
                await self._end()  # an answer nobody waits for would be taken for the next picture's
                raise
        if answer[:1] != b"+":
            raise InvalidRequest(answer[1:].decode(), param=param)
        return answer[1:]

    async def close(self) -> None:
        """End the child; a later picture starts another."""
        async with self._turn:
            await self._end()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            try:
                self._child = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    cwd=_ROOT,
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable("Pictures cannot be decoded now.") from error
        return self._child

    @staticmethod
    async def _ask(child: asyncio.subprocess.Process, data: bytes) -> bytes:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(LENGTH.pack(len(data)))
        child.stdin.write(data)
        await child.stdin.drain()
        (size,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
        return await child.stdout.readexactly(size)

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        if child.stdin is not None:
            child.stdin.close()
        await asyncio.shield(child.wait())


async def checked_picture(data: bytes, decoder: PictureDecoder, param: str = "image") -> bytes:
    """A stranger's picture as an upright PNG, RGB or RGBA, without metadata; what it is, is seen from its bytes.

    Raises: InvalidRequest.
    """
    if not data:
        raise InvalidRequest("The picture is empty.", param=param)
    if len(data) > MAX_PICTURE_BYTES:
        raise _too_many_bytes(param)
    return await decoder.normalise(data, param)


# ---- our own pictures ----------------------------------------------------------------------------


def encode(
    pixels: bytes | Path,
    *,
    format: Format = "png",
    quality: int = 90,
    text: str | None = None,
    max_px: int | None = None,
) -> bytes:
    """Our own PPM or PNG as a file for a client; blocks for tens of milliseconds, so call it in a thread.

    `quality` is 1 to 100, for JPEG and WebP. `text` goes where AUTOMATIC1111's clients read it: the PNG chunk
    `parameters`, or EXIF's UserComment. `max_px` bounds the longer edge.
    """
    from PIL import Image, PngImagePlugin

    data = pixels.read_bytes() if isinstance(pixels, Path) else pixels
    out = io.BytesIO()
    with Image.open(io.BytesIO(data), formats=("PPM", "PNG")) as picture:
        picture.load()
        picture.info = {}
        if max_px is not None:
            picture.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
        if format == "png":
            chunks = PngImagePlugin.PngInfo()
            if text is not None:
                chunks.add_text("parameters", text)
            picture.save(out, "PNG", compress_level=1, pnginfo=chunks)
        else:
            flat = picture.convert("RGB") if format == "jpeg" else picture
            flat.save(out, format.upper(), quality=quality, exif=b"" if text is None else _user_comment(text))
    return out.getvalue()


def opened(png: bytes) -> Image.Image:
    """A picture the decoder or the engine made, its pixels loaded."""
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        picture.load()
        return picture


def to_png(picture: Image.Image) -> bytes:
    """As a PNG, quickly."""
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _user_comment(text: str) -> bytes:
    from PIL import ExifTags, Image

    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be", "replace")
    return exif.tobytes()


def write_atomic(folder: Path, name: str, data: bytes) -> None:
    """`data` as `name` in `folder`, wholly or not at all, on disk on return. Blocks.

    Raises: StorageFull; ValueError for a name that is not server-made.
    """
    if not _FILE_NAME.fullmatch(name):
        raise ValueError("not a server-made name")
    temporary = f".{name}.{secrets.token_hex(4)}.tmp"
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _write_durably(directory, temporary, data)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull from error
        raise
    finally:
        os.close(directory)


def _write_durably(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]
        sync(file.fileno())


def open_picture(folder: Path, name: str) -> bytes | None:
    """A picture by its server-made name; None for any other name, and for what is no plain file (S-33). Blocks."""
    if not _PICTURE_NAME.fullmatch(name):
        return None
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EMLINK):
            return None
        raise
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
