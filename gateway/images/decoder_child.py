"""Child process that opens clients' images, so that a decompression bomb or a decoder's bug harms nothing else.

Knows bytes in and bytes out: no job, no path, no network. Run as `python -m gateway.images.decoder_child`. A request is
a frame with the image. An answer is `+` and a PNG; or `=`, a frame with the PNG and the smaller file it was made of; or
`-` and a sentence. The child exits at the end of its input.
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
"""Longest edge of the result. A larger image is scaled down while it is decoded."""
SENT_MAX_PIXELS = 50_000_000
"""Pixels of an image as sent: phones take photos of 12, 24 or 48 million."""
SENT_MAX_JPEG_PIXELS = 130_000_000
"""Pixels of a JPEG as sent: it is decoded at 1/2, 1/4 or 1/8 of its size, so that not all pixels are in memory."""
SENT_MAX_EDGE_PX = 65_535
MAX_MEMORY_BYTES = 2 * 1024**3
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
FIRST_FRAME = ("GIF", "TIFF", "AVIF", "HEIF", "MPO")
"""Formats of which only the first image is used."""
FIXED_S = 3.0
S_PER_MEGAPIXEL = 1.0
MOST_S = 25.0
"""Seconds of processor time for one image. The slowest kind one measured took 4 for 16.8 million pixels."""

_counts = False
"""Whether processor time is limited: only in the child."""


class Refused(Exception):
    """The image is refused; the text is a sentence for the client."""


def normalised(data: bytes) -> bytes:
    """The image as an upright PNG of mode RGB or RGBA that contains only pixels.

    Raises: Refused.
    """
    return checked(data)[0]


def checked(data: bytes) -> tuple[bytes, bytes]:
    """The PNG as `normalised` makes it, and the file it was made of, without metadata; empty unless smaller.

    The file without metadata is what is decoded, so that both are the same image. Raises: Refused.
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
    """The EXIF orientation of the image, 1 to 8, read from the header if that is enough. Raises: Refused."""
    with _opened(data) as image:
        _check_header(image)
        _allow(min(MOST_S, FIXED_S + S_PER_MEGAPIXEL * image.width * image.height / 1e6))
        if says_more_behind_its_pixels(data):
            image.load()
        return _orientation(image)


def _png_of(data: bytes, stands: int) -> bytes:
    """The image as an upright PNG. Raises: Refused."""
    with _opened(data) as image:
        _check_header(image)
        _draft(image)
        image.load()
        clean = _upright(_reduced(_pixels(image)), stands)
    out = io.BytesIO()
    clean.save(out, "PNG", compress_level=1)
    return out.getvalue()


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The image with its header read. Raises: Refused, also for errors found while the image is open."""
    from PIL import Image

    prepare()
    Image.MAX_IMAGE_PIXELS = SENT_MAX_JPEG_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        match = re.search(r"\((\d{1,20}) pixels\)", str(bomb))
        size = f"{match[1]} pixels" if match else "too many pixels"
        raise Refused(f"The picture has {size}; at most {SENT_MAX_JPEG_PIXELS} are taken.") from None
    except MemoryError:
        raise Refused("The picture needs too much memory to decode.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError, struct.error):
        raise Refused(
            "The picture is damaged, cut off, or not a PNG, JPEG or WebP, nor a GIF, BMP, TIFF, AVIF or HEIC."
        ) from None


def _check_header(image: Image.Image) -> None:
    """Check sizes by the header before a pixel is decoded: Pillow itself refuses only twice its limit."""
    width, height = image.size
    most = SENT_MAX_JPEG_PIXELS if image.format in ("JPEG", "MPO") else SENT_MAX_PIXELS
    if max(width, height) > SENT_MAX_EDGE_PX or width * height > most:
        raise Refused(
            f"The picture has {width} x {height} pixels; at most {most} are taken, {SENT_MAX_EDGE_PX} on one side."
        )
    # A JPEG with several frames (MPO) is a phone's photo with a thumbnail or depth map after it.
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) != 1:
        raise Refused("The picture is animated; send a single frame.")


def _excess(image: Image.Image) -> float:
    """How many times too long its longer edge is."""
    return max(1.0, math.sqrt(image.width * image.height / MAX_PIXELS), max(image.size) / MAX_EDGE_PX)


def _draft(image: Image.Image) -> None:
    """Let a JPEG that is too large be decoded at a fraction of its size."""
    excess = _excess(image)
    if excess > 1 and image.format in ("JPEG", "MPO"):
        part = next((part for part in (2, 4, 8) if part >= excess), 8)
        image.draft(None, (image.width // part, image.height // part))


def _reduced(image: Image.Image) -> Image.Image:
    """The image, scaled down to the allowed size."""
    from PIL import Image

    excess = _excess(image)
    if excess == 1:
        return image
    size = tuple(max(1, min(MAX_EDGE_PX, int(px / excess))) for px in image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)  # type: ignore[arg-type]


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, from EXIF or XMP. ImageOps.exif_transpose would read every entry of every directory."""
    exif = image.info.get("exif") or b""
    if not exif and isinstance(raw := image.info.get("Raw profile type exif"), str):
        with contextlib.suppress(ValueError):  # ImageMagick's; broken EXIF does not spoil the pixels
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return orientation(exif, xmp.encode(errors="replace") if isinstance(xmp, str) else xmp)


def _upright(image: Image.Image, stands: int) -> Image.Image:
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
    return image if turn is None else image.transpose(turn)


class _TooLong(BaseException):
    """The image has used up its processor time."""


def _allow(seconds: float) -> None:
    """Allow so many seconds of processor time from now on; 0 ends the limit. A busy machine does not shorten them."""
    if _counts:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _stop(number: int, frame: object) -> None:
    raise _TooLong


def _pixels(image: Image.Image) -> Image.Image:
    """Pixels of 8 bits a channel, alpha only if used, and an empty info, from which `save` would copy the ICC."""
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip it instead of scaling it
        image = image.convert("I").point([value / 256 for value in range(65536)], "L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if lowest == 255:
            image = image.convert("RGB")
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    image.info = {}
    return image


@cache
def prepare() -> None:
    """Import the decoders of accepted formats, and no others."""
    import pillow_heif
    from PIL import AvifImagePlugin, BmpImagePlugin, GifImagePlugin, Image, TiffImagePlugin

    Image.preinit()
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.options.THUMBNAILS = False
    pillow_heif.register_heif_opener()
    assert {AvifImagePlugin, BmpImagePlugin, GifImagePlugin, TiffImagePlugin}


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    global _counts
    requests, answers = own_pipes()
    prepare()  # before the memory limit, so that no import fails because of it
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
