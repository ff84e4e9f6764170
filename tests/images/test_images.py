"""Pictures from strangers, and files of our own."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from gateway import disk
from gateway.disk import write_atomic
from gateway.errors import InvalidRequest, RemoteImagesDisabled, StorageFull
from gateway.images import codec as images
from gateway.images.codec import (
    ImageDecoder,
    base64_image,
    check_image,
    encode,
    open_image,
)
from gateway.images.decoder_child import Refused, normalised
from gateway.images.output import OutputFolder


def a_picture(format: str = "PNG", size: tuple[int, int] = (8, 6), mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    picture = Image.new(mode, size, "red" if mode.startswith("RGB") else 1)
    picture.save(out, format, **options)
    return out.getvalue()


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return picture


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: header, the given chunks, nothing else."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def one_bit(edge: int) -> bytes:
    """A PNG of edge x edge pixels of one bit: 20 KB that Pillow opens as 800 MB where it may."""
    rows = zlib.compressobj(9)
    row = b"\0" * (edge // 8 + 1)
    data = b"".join(rows.compress(row) for _ in range(edge)) + rows.flush()
    return png_of(edge, edge, (b"IDAT", data))


# ---- base64 (S-30) -------------------------------------------------------------------------------

PNG = a_picture()
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        "\n ".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)) + "\r\n",
        f"data:image/png;base64,{TEXT}",
        f"  DATA:IMAGE/PNG;BASE64,{TEXT}",
        f"data:image/jpg;charset=utf-8;base64,{TEXT}",
        f"data:image/webp;base64,{TEXT}",
        f"data:image/svg+xml;base64,{TEXT}",
        f"data:application/octet-stream;base64,{TEXT}",
        f"data:;base64,{TEXT}",
    ],
)
def test_base64_and_data_urls_as_clients_write_them_are_read(text: str) -> None:
    """S-30."""
    assert base64_image(text) == PNG


@pytest.mark.parametrize(
    "text",
    ["", "   ", "====", "a", "not base64!", "äöü", TEXT[:40] + "-_", "QQ==QQ==", "QQ" + "=" * 5, f"=={TEXT}", "data:,x"]
    + [f"data:{kind},{TEXT}" for kind in ("image/png", "", ";base64;x", "image/png;charset=utf-8")],
)
def test_image_parameter_with_other_text_is_refused_by_name(text: str) -> None:
    """S-30."""
    with pytest.raises(InvalidRequest) as refused:
        base64_image(text, "init_images")
    assert refused.value.param == "init_images"
    assert len(refused.value.message) < 120


@pytest.mark.parametrize("url", ["http://x/y.png", "HTTPS://x", "file:///etc/passwd", "ftp://x", "s3://b/k"])
def test_image_urls_are_never_fetched(url: str) -> None:
    """S-30: the error says what to send instead."""
    with pytest.raises(RemoteImagesDisabled):
        base64_image(url)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../secret.png", "C:\\x.png"])
def test_image_paths_are_never_opened(path: str) -> None:
    """S-30: whatever comes of a path, it is read as base64 or refused."""
    try:
        data = base64_image(path)
    except InvalidRequest:
        return
    with pytest.raises(Refused):
        normalised(data)


def test_image_base64_above_limit_is_refused_and_at_limit_is_read_quickly() -> None:
    """S-30."""
    most = images.MAX_IMAGE_BYTES
    text = base64.b64encode(bytes(most)).decode()
    began = time.process_time()
    assert base64_image(text) == bytes(most)
    assert time.process_time() - began < 3.0
    for more in (most + 1, 2 * most):
        with pytest.raises(InvalidRequest):
            base64_image(base64.b64encode(bytes(more)).decode())


# ---- what the child does (S-31), called directly -------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_image_accepted_is_converted_to_png(format: str) -> None:
    """S-31."""
    picture = opened(normalised(a_picture(format)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (8, 6))


@pytest.mark.parametrize("format", ["PPM", "ICO", "PDF", "TGA", "PCX", "EPS"])
def test_image_of_other_format_is_refused_whatever_its_label(format: str) -> None:
    """S-31: formats are seen from the bytes."""
    with pytest.raises(Refused):
        normalised(a_picture(format))


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [("1", "RGB"), ("L", "RGB"), ("P", "RGB"), ("LA", "RGBA"), ("RGBA", "RGB"), ("I;16", "RGB")],
)
def test_image_every_colour_mode_becomes_rgb_or_rgba(mode: str, becomes: str) -> None:
    """S-31: alpha stays only where it says something."""
    assert opened(normalised(a_picture(mode=mode))).mode == becomes


def test_image_alpha_channel_is_kept_when_not_opaque() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(out, "PNG")
    assert opened(normalised(out.getvalue())).getpixel((0, 0)) == (1, 2, 3, 4)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    out = io.BytesIO()
    Image.new("I;16", (4, 4), 32768).save(out, "PNG")
    assert opened(normalised(out.getvalue())).getpixel((0, 0)) == (128, 128, 128)


def test_a_cmyk_jpeg_is_read() -> None:
    out = io.BytesIO()
    Image.new("CMYK", (4, 4), (0, 0, 0, 0)).save(out, "JPEG")
    assert opened(normalised(out.getvalue())).mode == "RGB"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_orientation_is_applied_and_all_metadata_dropped(format: str) -> None:
    """S-31: no GPS of the input in any output."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "CANARY-GPS"
    data = a_picture(format, exif=exif, icc_profile=b"CANARY-ICC" * 20, xmp=b"<x>CANARY-XMP</x>")
    if format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Comment", "CANARY-TEXT")
        chunks.add_itxt("XML:com.adobe.xmp", "CANARY-XMP")
        data = a_picture(format, exif=exif, icc_profile=b"CANARY-ICC" * 20, pnginfo=chunks)
    made = normalised(data)
    assert opened(made).size == (6, 8)
    assert opened(made).info == {}
    assert b"CANARY" not in made
    assert b"iCCP" not in made
    assert b"eXIf" not in made


def test_broken_exif_does_not_cost_the_picture() -> None:
    assert opened(normalised(a_picture("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))).size == (8, 6)


def test_image_of_several_frames_is_refused() -> None:
    """S-31."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("PNG", "WEBP"):
        out = io.BytesIO()
        frames[0].save(out, format, save_all=True, append_images=frames[1:])
        with pytest.raises(Refused, match="animated"):
            normalised(out.getvalue())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_image_truncated_anywhere_is_refused(format: str) -> None:
    """S-31."""
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, format)
    whole = out.getvalue()
    for part in (0, 1, 4, 11, 30, len(whole) // 2, len(whole) * 9 // 10):
        with pytest.raises(Refused):
            normalised(whole[:part])


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def gif_of(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b"\x02\x02\x44\x01\x00;"


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG that says it is that large."""
    small = a_picture("JPEG")
    at = small.index(b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]


BOMBS = {
    "13 000 x 13 000, one bit": lambda: one_bit(13_000),
    "60 000 x 60 000, header only": lambda: png_of(60_000, 60_000),
    "0 x 0": lambda: png_of(0, 0),
    "70 000 x 1": lambda: png_of(70_000, 1, (b"IDAT", zlib.compress(b""))),
    "7 072 x 7 072": lambda: png_of(7072, 7072, (b"IDAT", zlib.compress(b""))),
    "WebP 8 000 x 7 000": lambda: a_picture("WEBP", (8000, 7000), quality=1, method=0),
    "BMP 60 000 x 60 000": lambda: bmp_of(60_000, 60_000),
    "GIF 60 000 x 60 000": lambda: gif_of(60_000, 60_000),
    "JPEG 65 000 x 65 000": lambda: jpeg_of(65_000, 65_000),
    "text of 80 MB": lambda: png_of(
        8, 8, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))), (b"IDAT", zlib.compress(bytes(16)))
    ),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_image_decompression_bombs_are_refused_by_header(bomb: Any) -> None:
    """S-31, and the table of A2: no pixel is decoded, so it takes next to no time."""
    data = bomb()
    began = time.process_time()
    with pytest.raises(Refused):
        normalised(data)
    assert time.process_time() - began < 1.0


# ---- the child itself ----------------------------------------------------------------------------


async def test_image_decoder_child_answers_repeatedly_and_parent_never_imports_pillow() -> None:
    """S-31."""
    decoder = ImageDecoder()
    refusals, children = [], set()
    try:
        for bad in (b"no picture", a_picture("TGA"), one_bit(13_000), png_of(60_000, 60_000)):
            with pytest.raises(InvalidRequest) as refused:
                await check_image(bad, decoder, "mask")
            refusals.append(refused.value.param or "")
            children.update(decoder.idle_pids)
        picture = await check_image(a_picture("JPEG"), decoder)
    finally:
        await decoder.close()
    assert opened(picture.png).size == (8, 6)
    assert refusals == ["mask"] * 4
    assert len(children) == 1


async def test_parallel_image_requests_each_get_their_own_image() -> None:
    decoder = ImageDecoder()
    try:
        sent = (check_image(a_picture(size=(edge, 3)), decoder) for edge in range(1, 20))
        images = await asyncio.gather(*sent)
    finally:
        await decoder.close()
    assert [opened(image.png).width for image in images] == list(range(1, 20))


async def test_engine_child_is_replaced_after_death_or_hang(tmp_path: Path) -> None:
    """S-31: the picture is refused, the next one is decoded."""
    script = tmp_path / "child.py"
    script.write_text(
        "import sys, time, os\n"
        "while True:\n"
        "    size = int.from_bytes(sys.stdin.buffer.read(4), 'big')\n"
        "    data = sys.stdin.buffer.read(size)\n"
        "    if data == b'die': os._exit(9)\n"
        "    if data == b'hang': time.sleep(60)\n"
        "    if not data: os._exit(0)\n"
        "    sys.stdout.buffer.write(b'\\0\\0\\0\\3+ok'); sys.stdout.buffer.flush()\n"
    )
    decoder = ImageDecoder(deadline_s=1.0, command=(sys.executable, str(script)))
    for bad in (b"die", b"hang", b"die"):
        with pytest.raises(InvalidRequest):
            await decoder.normalise(bad)
        assert await decoder.normalise(b"fine") == b"ok"
    waiting = asyncio.create_task(decoder.normalise(b"hang"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await decoder.normalise(b"fine") == b"ok"
    await decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds on Linux only")
async def test_image_decoder_child_has_memory_limit_and_exits_at_end_of_input() -> None:
    """S-31."""
    decoder = ImageDecoder()
    await check_image(a_picture(), decoder)
    (child,) = decoder._idle
    assert child.stdin is not None
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    child.stdin.close()
    async with asyncio.timeout(5):
        code = await child.wait()
    await decoder.close()
    line, code = next(line for line in limits.splitlines() if "address space" in line), code
    assert str(2 * 1024**3) in line
    assert code == 0


# ---- our own pictures ----------------------------------------------------------------------------

PPM = b"P6\n4 2\n255\n" + bytes(range(24))


@pytest.mark.parametrize("text", ["a cat\nSteps: 4, Seed: 1", "a 猫 😀"])
def test_metadata_request_is_readable_from_every_image_format(text: str) -> None:
    png = opened(encode(PPM, text=text))
    assert png.info["parameters"] == text
    assert png.tobytes() == bytes(range(24))
    for format in ("jpeg", "webp"):
        picture = opened(encode(PPM, format=format, quality=80, text=text))
        assert picture.format == format.upper()
        comment = picture.getexif().get_ifd(0x8769)[0x9286]
        assert comment[:8] == b"UNICODE\0"
        assert comment[8:].decode("utf-16-be") == text


def test_metadata_is_not_written_without_text(tmp_path: Path) -> None:
    """S-32."""
    (tmp_path / "x.ppm").write_bytes(PPM)
    for format in ("png", "jpeg", "webp"):
        picture = opened(encode(tmp_path / "x.ppm", format=format))
        assert "parameters" not in picture.info
        assert not picture.getexif()


NAME = "0123456789abcdef" * 2 + ".1.0.png"


def test_download_file_appears_complete_with_no_temporary_files(tmp_path: Path) -> None:
    """S-33."""
    write_atomic(tmp_path, NAME, b"one")
    write_atomic(tmp_path, NAME, b"two")
    assert open_image(tmp_path, NAME) == b"two"
    assert [f.name for f in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "sync_before_next", no_room)
    return None


@pytest.mark.usefixtures("full_disk")
def test_disk_full_raises_storage_full_and_keeps_existing_files(tmp_path: Path) -> None:
    """R-05: 507, no half a file."""
    (tmp_path / NAME).write_bytes(b"old")
    with pytest.raises(StorageFull):
        write_atomic(tmp_path, NAME, b"new")
    assert [f.name for f in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == b"old"


@pytest.mark.parametrize("name", ["../x.png", "/etc/x", "a/b", ".hidden", "", "A.png", "a\0b", "a" * 200])
def test_image_files_are_written_only_under_server_made_names(tmp_path: Path, name: str) -> None:
    """S-33."""
    with pytest.raises(ValueError, match="server-made"):
        write_atomic(tmp_path, name, b"x")
    assert not list(tmp_path.iterdir())


def test_lora_links_folders_and_pipes_are_not_opened(tmp_path: Path) -> None:
    """S-33: O_NOFOLLOW below the folder's own descriptor."""
    (tmp_path / "secret").write_bytes(b"secret")
    link, folder, pipe = (NAME.replace(".1.0", f".1.{n}") for n in (1, 2, 3))
    (tmp_path / link).symlink_to(tmp_path / "secret")
    (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / pipe)
    for name in (link, folder, pipe, NAME):
        assert open_image(tmp_path, name) is None
    assert open_image(tmp_path / "nowhere", NAME) is None


@pytest.mark.parametrize(
    "name",
    ["secret", "../" + NAME, NAME + "\n", NAME.upper(), "./" + NAME, NAME + "/", NAME.replace(".png", ".jpg"), ""],
)
def test_image_file_open_ignores_other_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-33."""
    (tmp_path / NAME).write_bytes(b"x")
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened something"))
    assert open_image(tmp_path, name) is None


def test_output_folder_names_the_jobs_whose_images_may_be_there(tmp_path: Path) -> None:
    output, there, other = OutputFolder(tmp_path), "a" * 32, "b" * 32
    for name in (f"{there}.1.0.png", f"{there}.1.1.png", f".{other}.1.0.png.tmp", f"{other}.txt", "notes.png"):
        (tmp_path / name).touch()
    assert {there} <= output.jobs_there()
    assert other not in output.jobs_there()
    (tmp_path / f"{other}.2.0.png").touch()
    assert {there, other} <= output.jobs_there()
