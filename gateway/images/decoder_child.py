"""The child that opens pictures from strangers, so that a bomb or a bug in a decoder takes nothing else with it.

Knows bytes in and bytes out: no job, no path, no network. Run as `python -m gateway.images.decoder_child`. A request is
a frame with the picture; an answer is one of `+` and a PNG, `=`, a PNG as a frame and the smaller file it was made of,
or `-` and a sentence. End of input: leave.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import signal
import struct
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from gateway.framing import framed, limit_memory, own_pipes, read_frame
from gateway.images.header import TooMuchWork, check_work, orientation
from gateway.images.stripping import says_more_behind_its_pixels, stripped

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 16_777_216
MAX_EDGE_PX = 8192
"""Of what is made of a picture. A larger one is made smaller as it is decoded."""
SENT_MAX_PIXELS = 50_000_000
"""Of a picture as sent: photos of phones have 12, 24 or 48 million."""
SENT_MAX_JPEG_PIXELS = 130_000_000
"""A JPEG is decoded at a half, a quarter or an eighth of its size, so that its pixels are never all there."""
SENT_MAX_EDGE_PX = 65_535
MAX_MEMORY_BYTES = 2 * 1024**3
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
FIRST_FRAME = ("GIF", "TIFF", "AVIF", "HEIF", "MPO")
"""Of these, what comes behind the first picture is left out."""
FIXED_S = 3.0
S_PER_MEGAPIXEL = 1.0
MOST_S = 25.0
"""Seconds of processor that a picture may take. The slowest kind one measured took 4 for 16.8 million pixels."""

_counts = False
"""In the child alone."""


class Refused(Exception):
    """The picture is not taken; the text is a sentence for the client."""


def normalised(data: bytes) -> bytes:
    """The picture as a PNG of mode RGB or RGBA, upright, with nothing in it but pixels.

    Raises: Refused.
    """
    return checked(data)[0]


def checked(data: bytes) -> tuple[bytes, bytes]:
    """The PNG as `normalised` makes it, and the file that it was made of, without metadata; empty unless smaller.

    What is decoded is that file, so that both are the same picture. Raises: Refused.
    """
    try:
        check_work(data)
    except TooMuchWork as refused:
        raise Refused(str(refused)) from None
    stands = _stands(data)
    file = stripped(data, stands)
    if file is not None:
        with contextlib.suppress(Refused):
            png = _png_of(file, stands)
            return png, file if len(file) < len(png) else b""
    return _png_of(data, stands), b""


def _stands(data: bytes) -> int:
    """How the picture stands, 1 to 8, by its header alone where that says all. Raises: Refused."""
    with _opened(data) as picture:
        _check_header(picture)
        _allow(min(MOST_S, FIXED_S + S_PER_MEGAPIXEL * picture.width * picture.height / 1e6))
        if says_more_behind_its_pixels(data):
            picture.load()
        return _orientation(picture)


def _png_of(data: bytes, stands: int) -> bytes:
    """Raises: Refused."""
    with _opened(data) as picture:
        _check_header(picture)
        _draft(picture)
        picture.load()
        clean = _upright(_reduced(_pixels(picture)), stands)
    out = io.BytesIO()
    clean.save(out, "PNG", compress_level=1)
    return out.getvalue()


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Its header is read. Raises: Refused, also for what is found to be wrong with it while it is open."""
    from PIL import Image

    prepare()
    Image.MAX_IMAGE_PIXELS = SENT_MAX_JPEG_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                yield picture
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        found = re.search(r"\((\d{1,20}) pixels\)", str(bomb))
        size = f"{found[1]} pixels" if found else "too many pixels"
        raise Refused(f"The picture has {size}; at most {SENT_MAX_JPEG_PIXELS} are taken.") from None
    except MemoryError:
        raise Refused("The picture needs too much memory to decode.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError, struct.error):
        raise Refused(
            "The picture is damaged, cut off, or not a PNG, JPEG or WebP, nor a GIF, BMP, TIFF, AVIF or HEIC."
        ) from None


def _check_header(picture: Image.Image) -> None:
    """Sizes by the header alone, before a pixel is decoded: Pillow itself minds only twice its limit."""
    width, height = picture.size
    most = SENT_MAX_JPEG_PIXELS if picture.format in ("JPEG", "MPO") else SENT_MAX_PIXELS
    if max(width, height) > SENT_MAX_EDGE_PX or width * height > most:
        raise Refused(
            f"The picture has {width} x {height} pixels; at most {most} are taken, {SENT_MAX_EDGE_PX} on one side."
        )
    # A JPEG of several frames (MPO) is one photo with a thumbnail or depth map behind it: phones write them.
    if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) != 1:
        raise Refused("The picture is animated; send a single frame.")


def _excess(picture: Image.Image) -> float:
    """How many times too long its sides are."""
    return max(1.0, math.sqrt(picture.width * picture.height / MAX_PIXELS), max(picture.size) / MAX_EDGE_PX)


def _draft(picture: Image.Image) -> None:
    """Have a JPEG that is too large decoded at a part of its size."""
    excess = _excess(picture)
    if excess > 1 and picture.format in ("JPEG", "MPO"):
        part = next((part for part in (2, 4, 8) if part >= excess), 8)
        picture.draft(None, (picture.width // part, picture.height // part))


def _reduced(picture: Image.Image) -> Image.Image:
    """The picture, no larger than it may be."""
    from PIL import Image

    excess = _excess(picture)
    if excess == 1:
        return picture
    size = tuple(max(1, min(MAX_EDGE_PX, int(px / excess))) for px in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)  # type: ignore[arg-type]


def _orientation(picture: Image.Image) -> int:
    """As EXIF or XMP say it stands. ImageOps.exif_transpose would read every entry of every directory there is."""
    exif = picture.info.get("exif") or b""
    if not exif and isinstance(raw := picture.info.get("Raw profile type exif"), str):
        with contextlib.suppress(ValueError):  # ImageMagick's; broken EXIF does not make the pixels wrong
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    return orientation(exif, xmp.encode(errors="replace") if isinstance(xmp, str) else xmp)


def _upright(picture: Image.Image, stands: int) -> Image.Image:
    from PIL import Image

    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(stands)
    return picture if turn is None else picture.transpose(turn)


class _TooLong(BaseException):
    """The seconds of processor that a picture may take are over."""


def _allow(seconds: float) -> None:
    """So many seconds of processor from now on; 0 ends the count. A busy machine does not make them fewer."""
    if _counts:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _stop(number: int, frame: object) -> None:
    raise _TooLong


def _pixels(picture: Image.Image) -> Image.Image:
    """Eight bits a channel, alpha only where it says something, and an empty info: `save` would copy ICC from there."""
    if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        picture = picture.convert("I").point([value / 256 for value in range(65536)], "L")
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        lowest, _ = picture.getchannel("A").getextrema()
        if lowest == 255:
            picture = picture.convert("RGB")
    if picture.mode not in ("RGB", "RGBA"):
        picture = picture.convert("RGB")
    picture.info = {}
    return picture


@cache
def prepare() -> None:
    """Import what opens pictures, and nothing that is not taken."""
    import pillow_heif
    from PIL import AvifImagePlugin, BmpImagePlugin, GifImagePlugin, Image, TiffImagePlugin

    Image.preinit()
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.options.THUMBNAILS = False
    pillow_heif.register_heif_opener()
    assert {AvifImagePlugin, BmpImagePlugin, GifImagePlugin, TiffImagePlugin}


def main() -> None:
    """Answer pictures until the parent closes the pipe."""
    global _counts
    requests, answers = own_pipes()
    prepare()  # before the limit, so that a refusal never comes from an import
    limit_memory(MAX_MEMORY_BYTES)
    signal.signal(signal.SIGPROF, _stop)
    _counts = True
    while (data := read_frame(requests)) is not None:
        try:
            _allow(FIXED_S)
            png, file = checked(data)
            answer = b"=" + framed(png) + file if file else b"+" + png
        except _TooLong:
            answer = b"-The picture takes too long to decode."
        except Refused as refused:
            answer = b"-" + str(refused).encode()
        except MemoryError:
            answer = b"-The picture needs too much memory to decode."
        _allow(0)
        answers.write(framed(answer))
        answers.flush()


if __name__ == "__main__":
    main()
