"""Files made to be slow to look at, each small enough to be sent."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_packed_texts(count: int = 8000, *, keyword: str = "a", distinct: bool = False, size: int = 255_000) -> bytes:
    """A sound PNG whose `count` zTXt chunks unpack to `size` bytes each: 2.8 MB with what is said here."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    head, tail = out.getvalue()[:33], out.getvalue()[33:]
    packed = zlib.compress(bytes(size), 9)
    names = (f"{keyword}{n if distinct else ''}".encode() for n in range(count))
    return head + b"".join(png_chunk(b"zTXt", name + b"\0\0" + packed) for name in names) + tail


def png_of_empty_chunks(count: int = 1_000_000) -> bytes:
    """A PNG whose picture comes in `count` IDAT chunks, all but the first empty."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    data = out.getvalue()
    end = data.rindex(b"IEND") - 4
    return data[:end] + png_chunk(b"IDAT", b"") * count + data[end:]


def jpeg_of_scans(count: int = 20_000, edge_px: int = 2048) -> bytes:
    """A progressive JPEG whose last scan is there `count` times more."""
    out = io.BytesIO()
    Image.new("RGB", (edge_px, edge_px), "red").save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * count + data[end:]


def exif_of_entries(*, count: int = 65_535, value_bytes: int = 0) -> bytes:
    """A TIFF block whose first directory has `count` entries that all point at the same many bytes."""
    entry = struct.pack("<HHII", 0x9999, 7, value_bytes, 8)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count) + entry * count + bytes(4)


def png_of_exif(exif: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(out, "PNG")
    return out.getvalue()[:33] + png_chunk(b"eXIf", exif) + out.getvalue()[33:]


def gif_of_blocks(count: int = 2_000_000, *, comment: bool = False) -> bytes:
    """A GIF of `count` sub-blocks of one byte, in a comment or before it."""
    blocks = b"\x01a" * count + b"\0"
    return b"GIF89a" + bytes(7) + (b"\x21\xfe" if comment else b"\x21\xff") + blocks + b"\x21\xfe\x01c\0;"
