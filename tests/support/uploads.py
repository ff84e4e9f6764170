"""Pictures as clients send them, with metadata that must not be kept: every place of it holds the word CANARY."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image, ImageChops, PngImagePlugin

from tests.support.hostile_files import png_chunk

CANARY = b"CANARY"
WORDS = "CANARY " * 40
SIZE = (320, 240)


def noise(size: tuple[int, int] = SIZE, sigma: float = 60.0) -> Image.Image:
    """RGB, each channel on its own."""
    return Image.merge("RGB", [Image.effect_noise(size, sigma) for _ in range(3)])


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    """With a place, a maker's note and a thumbnail, as phones write it."""
    said = Image.Exif()
    said[0x0112], said[0x010E] = orientation, WORDS
    said.get_ifd(0x8825)[1], said.get_ifd(0x8769)[0x927C] = WORDS, CANARY * 50
    return said.tobytes() + CANARY * 100


def told(orientation: int) -> dict[str, Any]:
    return {"exif": exif(orientation), "icc_profile": CANARY * 500, "xmp": b"<x>" + CANARY * 30 + b"</x>"}


def sources() -> dict[str, bytes]:
    """Name to file."""
    rgb, grey = noise(), Image.effect_noise(SIZE, 70)
    clear = rgb.copy()
    clear.putalpha(ImageChops.offset(grey, 7))
    smooth = Image.linear_gradient("L").resize(SIZE)
    palette = Image.merge("RGB", [smooth, smooth.rotate(180), smooth]).quantize(64)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", WORDS)
    texts.add_text("parameters", WORDS, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", WORDS)
    texts.add(b"prVt", CANARY * 3)
    jpeg = saved(rgb, "JPEG", quality=85)
    late = saved(rgb, "PNG")
    end = late.rindex(b"IEND") - 4
    rgb_components = saved(rgb, "JPEG", keep_rgb=True)
    return {
        "JPEG of a phone": saved(rgb, "JPEG", quality=90, comment=CANARY, **told(6)),
        "JPEG behind which more follows": jpeg + CANARY + jpeg,
        "JPEG with a thumbnail in JFIF": with_jfif_thumbnail(jpeg),
        "JPEG of RGB components": rgb_components,
        "JPEG of components that JFIF says are not RGB": named_rgb(jpeg),
        "JPEG with restarts": saved(rgb, "JPEG", restart_marker_rows=1, **told(1)),
        "JPEG that mirrors": saved(rgb, "JPEG", **told(5)),
        "progressive JPEG": saved(rgb, "JPEG", progressive=True, **told(8)),
        "CMYK JPEG": saved(rgb.convert("CMYK"), "JPEG", **told(3)),
        "grey JPEG": saved(grey, "JPEG", **told(1)),
        "MPO": saved(rgb, "MPO", save_all=True, append_images=[noise((64, 48))], exif=exif(6)),
        "palette PNG": saved(palette, "PNG", compress_level=9, transparency=bytes(range(64)), pnginfo=texts),
        "16-bit PNG": saved(grey.convert("I;16").point(lambda value: value * 257), "PNG", compress_level=9),
        "1-bit PNG": saved(grey.convert("1"), "PNG", compress_level=9, **told(2)),
        "PNG with texts": saved(rgb, "PNG", compress_level=9, pnginfo=texts, **told(6)),
        "PNG with EXIF at its end": late[:end] + png_chunk(b"eXIf", exif(6)[6:]) + late[end:] + CANARY,
        "PNG of one clear colour": saved(palette.convert("RGB"), "PNG", compress_level=9, transparency=(0, 255, 0)),
        "clear PNG": saved(clear, "PNG", compress_level=9),
        "animated PNG of one frame": animated_png(
            saved(palette.convert("RGB"), "PNG", compress_level=9, pnginfo=texts)
        ),
        "animated WebP of one frame": animated_webp(saved(rgb, "WEBP", quality=70), SIZE),
        "animated clear WebP of one frame": animated_webp(saved(clear, "WEBP", lossless=True), SIZE, 0x10),
        "lossy WebP": saved(rgb, "WEBP", quality=70, **told(6)),
        "lossless WebP": saved(palette.convert("RGB"), "WEBP", lossless=True),
        "clear lossy WebP": saved(clear, "WEBP", quality=70, **told(8)) + CANARY,
        "clear lossless WebP": saved(clear, "WEBP", lossless=True, **told(1)),
    }


def animated_png(png: bytes) -> bytes:
    """The same as an animation of one frame."""
    size = png[16:24]
    frame = png_chunk(b"acTL", struct.pack(">II", 1, 0)) + png_chunk(
        b"fcTL", bytes(4) + size + bytes(8) + struct.pack(">HHBB", 1, 10, 0, 0)
    )
    return png[:33] + frame + png[33:]


def animated_webp(still: bytes, size: tuple[int, int], alpha: int = 0) -> bytes:
    """The same as an animation of one frame, from a file of pixels alone; something unknown is in the frame."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    edges = b"".join((edge - 1).to_bytes(3, "little") for edge in size)
    head = chunk(b"VP8X", bytes((0x02 | alpha, 0, 0, 0)) + edges) + chunk(b"ANIM", bytes(6))
    frame = bytes(6) + edges + (100).to_bytes(3, "little") + b"\0"
    body = head + chunk(b"ANMF", frame + still[12:] + chunk(b"UNKN", CANARY)) + chunk(b"XMP ", CANARY)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def with_jfif_thumbnail(jpeg: bytes) -> bytes:
    """The 100 pixels of RGB that JFIF may hold, and an extension segment."""
    (size,) = struct.unpack_from(">H", jpeg, 4)
    small = (CANARY * 50)[:300]
    head = b"JFIF\0\1\1\0\0\1\0\1\x0a\x0a" + small
    more = b"JFXX\0\x10" + CANARY * 9
    segments = [b"\xff\xe0" + struct.pack(">H", 2 + len(body)) + body for body in (head, more)]
    return jpeg[:2] + b"".join(segments) + jpeg[4 + size :]


def named_rgb(jpeg: bytes) -> bytes:
    """YCbCr whose components are called R, G and B: only JFIF says that they are none."""
    start = jpeg.index(b"\xff\xc0")
    scan = jpeg.index(b"\xff\xda")
    data = bytearray(jpeg)
    for n, name in enumerate(b"RGB"):
        data[start + 10 + 3 * n] = data[scan + 5 + 2 * n] = name
    return bytes(data)
