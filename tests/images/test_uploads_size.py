"""Input pictures take no more room than the files that were sent, say nothing but pixels, and are drawn upon alike."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import logging
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageOps

from gateway.errors import StorageFault, StorageFull
from gateway.images.decoder import CheckedImage, ImageDecoder
from gateway.images.decoder_child import Refused, checked, normalised
from gateway.images.input_files import KeptInputs
from gateway.images.stripping import stripped
from gateway.round_robin import Share
from gateway.store.base import InputBounds
from gateway.store.database import NAME
from gateway.store.sqlite import SqliteStore
from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit
from tests.support.uploads import CANARY, noise, saved, sources

SOURCES = sources()
ADDED = 64
"""Bytes that may come on top of a file: how the picture stands, written anew."""
ME = Share("peer:1", "client:me")


def pixels(data: bytes, mode: str | None = "RGB") -> Image.Image:
    """As Pillow alone reads and turns the file."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        found = ImageOps.exif_transpose(picture)
    return found if mode is None else plain(found.convert(mode))


def plain(picture: Image.Image) -> Image.Image:
    picture.info = {}  # which equal pictures have equal
    return picture


# ---- what the child makes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_input_image_stored_form_is_no_larger_than_file_with_same_pixels(name: str) -> None:
    """S-31, S-34: its pixels are those of the file as it came, and all else is gone."""
    data = SOURCES[name]
    png, compact = checked(data)
    kept = compact or png
    assert len(kept) <= len(data) + ADDED
    assert CANARY not in kept
    for word in (b"ICC_PROFILE", b"iCCP", b"http:", b"XMP ", b"MPF\0", b"tEXt"):
        assert word not in kept
    made, wanted = pixels(png, None), pixels(data, None)
    if wanted.mode == "I;16":
        wanted = wanted.convert("I").point([value / 256 for value in range(65536)], "L")
    assert plain(made) == plain(wanted.convert(made.mode))
    assert png == normalised(data)
    assert checked(kept)[0] == png
    assert not compact or checked(kept)[1] == compact


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_image_exif_keeps_only_orientation(kind: str, orientation: int) -> None:
    """S-31."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "CANARY"
    picture = noise((40, 24))
    data = saved(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    png, _ = checked(data)
    file = stripped(data, orientation)
    assert file is not None
    assert CANARY not in file
    with Image.open(io.BytesIO(file)) as again:
        assert dict(again.getexif()) == ({} if orientation == 1 else {0x0112: orientation})
    assert normalised(file) == png
    assert pixels(png) == pixels(data)


def test_image_noisy_jpeg_of_many_megapixels_is_kept_unchanged() -> None:
    """S-34: as a PNG it would take several times as much."""
    data = saved(noise((2400, 1600), 100), "JPEG", quality=75)
    png, compact = checked(data)
    assert len(compact) <= len(data)
    assert len(png) > 2 * len(data)


def test_image_files_with_flipped_bytes_are_refused_or_kept_as_decoded() -> None:
    """S-31: whatever is kept, it decodes to the very PNG whose sum is its name."""
    chance = random.Random(7)
    small = sources_of_one_size((48, 32))
    taken = 0
    for n in range(700):
        data = bytearray(chance.choice(small))
        for _ in range(chance.choice((1, 1, 2, 5))):
            data[chance.randrange(min(len(data), chance.choice((40, 300, 10**6))))] = chance.randrange(256)
        if n % 5 == 0:
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
        with suppress(Refused):
            png, compact = checked(bytes(data))
            taken += 1
            assert not compact or (len(compact) < len(png) and checked(compact)[0] == png)
            assert len(compact) <= len(data) + ADDED
    assert taken > 100


def sources_of_one_size(size: tuple[int, int]) -> list[bytes]:
    picture = noise(size)
    return [
        saved(picture, "JPEG"),
        saved(picture, "JPEG", progressive=True),
        saved(picture.quantize(16), "PNG", transparency=bytes(range(16))),
        saved(picture, "WEBP", exif=Image.Exif()),
        saved(picture, "WEBP", lossless=True),
    ]


HEADS = (
    b"\xff\xd8",
    b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\xff\0\0\0WEBP",
    b"RIFF\0\0\0\0WEBPVP8X",
)


def test_metadata_stripping_never_raises_for_any_bytes() -> None:
    """S-31: cut anywhere, or nonsense behind a good beginning."""
    chance = random.Random(3)
    for _ in range(4000):
        assert isinstance(stripped(chance.choice(HEADS) + chance.randbytes(chance.randrange(60)), 6), bytes | None)
    for data in SOURCES.values():
        for end in (*range(80), *(chance.randrange(len(data)) for _ in range(40))):
            stripped(data[:end], 8)
    assert stripped(b"", 1) is None


# ---- what is kept, and read back ---------------------------------------------------------------------


class Kept:
    """A store of its own with a decoder."""

    def __init__(self, folder: Path, **decoder: Any) -> None:
        self.folder = folder
        self.store = SqliteStore(folder)
        self.decoder = ImageDecoder(**decoder)
        self.inputs = KeptInputs(self.store, self.decoder)

    async def __aenter__(self) -> Kept:
        await self.store.open(lambda job, event: None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.decoder.close()
        await self.store.close()

    def file(self, name: str) -> Path:
        return self.folder / "blobs" / name

    def counted(self) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(self.folder / NAME)) as db:
            return list(db.execute("SELECT owner, bytes FROM blob_owners ORDER BY owner"))


async def test_input_image_with_equal_pixels_has_one_name_and_smaller_file(tmp_path: Path) -> None:
    """S-34: whichever came first; all who sent it are counted for what is there."""
    async with Kept(tmp_path) as kept:
        jpeg = await kept.decoder.check(saved(noise(), "JPEG"))
        plain = await kept.decoder.check(jpeg.png)
        name = await kept.inputs.keep(plain, ME, None)
        assert name == hashlib.sha256(jpeg.png).hexdigest()
        assert kept.file(name).stat().st_size == len(plain.stored_bytes)
        assert await kept.inputs.keep(jpeg, Share("peer:2", "client:other"), None) == name
        assert kept.file(name).read_bytes() == jpeg.compact
        assert await kept.store.blob_bytes(name) == len(jpeg.compact)
        assert await kept.inputs.keep(plain, ME, None) == name
        assert kept.file(name).read_bytes() == jpeg.compact
        assert kept.counted() == [("client:me", len(jpeg.compact)), ("client:other", len(jpeg.compact))]
        assert await kept.inputs.png(name, ME) == await kept.inputs.whole(name) == jpeg.png
        assert await kept.inputs.again(name, ME) == name
        for who in (kept.inputs.png, kept.inputs.again):
            with pytest.raises(KeyError):
                await who(name, Share("peer:3", "client:third"))


async def test_image_upload_quota_counts_stored_bytes(tmp_path: Path) -> None:
    """S-34: of a bound that the PNGs would pass."""
    async with Kept(tmp_path) as kept:
        pictures = [await kept.decoder.check(saved(noise(), "JPEG", quality=50)) for _ in range(4)]
        room = sum(len(picture.stored_bytes) for picture in pictures[:3])
        assert room < len(pictures[0].png)
        for picture in pictures[:3]:
            await kept.inputs.keep(picture, ME, InputBounds(room, room))
        with pytest.raises(StorageFull):
            await kept.inputs.keep(pictures[3], ME, InputBounds(room, room))


async def test_input_image_non_images_and_old_png_files_are_read_unchanged(tmp_path: Path) -> None:
    """A PDF is nobody's picture; files of older versions stay."""
    async with Kept(tmp_path) as kept:
        pdf = await kept.inputs.keep(b"%PDF-1.4 of no pages", ME, None)
        assert await kept.inputs.whole(pdf) == b"%PDF-1.4 of no pages"
        png = saved(noise(), "PNG")
        older = await kept.store.put_blob(png, ME.owner)
        assert await kept.inputs.png(older, ME) == await kept.inputs.whole(older) == png
        assert kept.decoder.idle_pids == ()
        for read in (kept.inputs.png, kept.inputs.again):
            with pytest.raises(KeyError):
                await read(pdf, ME)


async def test_input_image_file_damaged_counts_as_missing_and_changed_pixels_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version of the decoder may read a file otherwise; a job is not lost over that."""
    async with Kept(tmp_path) as kept:
        picture = await kept.decoder.check(saved(noise(), "JPEG"))
        name = await kept.inputs.keep(picture, ME, None)
        for damaged in (b"", picture.compact[:1000], b"\x89PNG\r\n\x1a\n", b"nonsense"):
            kept.file(name).write_bytes(damaged)
            with pytest.raises(KeyError):
                await kept.inputs.whole(name)
            with pytest.raises(KeyError):
                await kept.inputs.png(name, ME)
        other = await kept.decoder.check(saved(noise(), "JPEG"))
        kept.file(name).write_bytes(other.compact)
        with caplog.at_level(logging.WARNING, "gateway.inputs"):
            assert await kept.inputs.whole(name) == other.png
        assert "other pixels" in caplog.text


async def test_input_image_of_job_skips_client_queue_and_survives_decoder_fault(tmp_path: Path) -> None:
    """S-31: all turns are taken, and stay so; where no child starts the job goes back instead of failing."""
    async with Kept(tmp_path, children=1) as kept:
        picture = await kept.decoder.check(saved(noise(), "JPEG"))
        name = await kept.inputs.keep(picture, ME, None)
        await kept.decoder._turns.take(ME)
        waiting = asyncio.create_task(kept.inputs.png(name, ME))
        async with asyncio.timeout(30):
            both = await asyncio.gather(kept.inputs.whole(name), kept.inputs.whole(name))
        assert both == [picture.png] * 2
        assert not waiting.done()
        kept.decoder._turns.give_back(ME)
        assert await waiting == picture.png
        broken = KeptInputs(kept.store, ImageDecoder(command=("/no/such/program",)))
        with pytest.raises(StorageFault):
            await broken.whole(name)


def test_image_used_unmodified_is_stored_as_received() -> None:
    picture = CheckedImage(b"png", b"jpg")
    assert picture.stored_bytes == b"jpg"
    assert picture.unless_same(b"png") is picture
    assert picture.unless_same(b"other") == CheckedImage(b"other")
    assert CheckedImage(b"png").stored_bytes == b"png"


# ---- over the wire -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("sizes"), fake_script={"step_seconds": 0.2}) as started:
        yield started


def blob(gateway: Live, name: str) -> bytes:
    return (gateway.folder / "data" / "blobs" / name).read_bytes()


def test_image_uploads_are_stored_no_larger_than_sent_and_returned_as_png(gateway: Live) -> None:
    """S-31, S-34: of every kind; sent twice they are one."""
    with client_of(gateway.url) as client:
        for name, data in SOURCES.items():
            told = client.post("/uploads", files={"image": ("picture", data)}).json()
            again = client.post("/uploads", json={"image": base64.b64encode(data).decode()}).json()
            kept, png = blob(gateway, told["id"]), normalised(data)
            assert told["bytes"] == again["bytes"] == len(kept) <= len(data) + ADDED, name
            assert told["id"] == again["id"] == hashlib.sha256(png).hexdigest(), name
            assert CANARY not in kept, name
            got = client.get(f"/uploads/{told['id']}")
            assert got.headers["content-type"] == "image/png"
            assert got.content == png
            assert (told["width"], told["height"]) == Image.open(io.BytesIO(png)).size


def test_input_image_is_stored_unchanged_in_every_protocol(gateway: Live) -> None:
    """S-34: references, pictures that already fit, and those to be read; nothing is left of their metadata."""
    folder = gateway.folder / "data" / "blobs"
    before = {file.name for file in folder.iterdir()}

    def fresh() -> list[bytes]:
        new = {file.name for file in folder.iterdir()} - before
        before.update(new)
        return [(folder / name).read_bytes() for name in new]

    def jpeg() -> bytes:
        return saved(noise((128, 64)), "JPEG", quality=80, comment=CANARY * 20)

    body: dict[str, Any] = {"prompt": "x", "width": 128, "height": 64, "steps": 1}

    def native(text: str) -> httpx.Response:
        with client_of(gateway.url) as client:
            return client.post("/generate", json={**body, "init_images": [text]})

    def sdapi(text: str) -> httpx.Response:
        said = {**body, "init_images": [text]}
        return httpx.post(gateway.url + "/sdapi/v1/img2img", json=said, timeout=60)

    def edits(text: str) -> httpx.Response:
        files = {"image": ("a.jpg", base64.b64decode(text))}
        return httpx.post(gateway.url + "/v1/images/edits", data={"prompt": "x"}, files=files, timeout=60)

    def variations(text: str) -> httpx.Response:
        files = {"image": ("a.jpg", base64.b64decode(text))}
        return httpx.post(gateway.url + "/v1/images/variations", data={"size": "128x64"}, files=files, timeout=60)

    def mflux_server(text: str) -> httpx.Response:
        return httpx.post(gateway.url + "/api/generate", json={**body, "init_image": text}, timeout=60)

    for send in (native, sdapi, edits, variations, mflux_server):
        data = jpeg()
        answer = send(base64.b64encode(data).decode())
        assert answer.status_code in (200, 202), answer.text
        kept = fresh()
        assert kept, send
        for file in kept:
            assert len(file) <= len(data), send
            assert CANARY not in file


def test_image_refused_leaves_no_files(gateway: Live) -> None:
    with client_of(gateway.url) as client:
        count = len(list((gateway.folder / "data" / "blobs").iterdir()))
        for data in (SOURCES["JPEG of a phone"][:3000], b"\xff\xd8\xff\xd9", b"RIFF\0\0\0\0WEBP", SOURCES["MPO"][:900]):
            assert client.post("/uploads", files={"image": ("x", data)}).status_code == 400
        assert len(list((gateway.folder / "data" / "blobs").iterdir())) == count


def drawn(client: httpx.Client, job_id: str) -> Image.Image:
    job = ended(client, job_id)
    assert job["status"] == "completed", json.dumps(job)
    return pixels(client.get(f"/jobs/{job_id}/images/0").content)


def test_input_image_file_is_reused_after_restart(gateway: Live) -> None:
    """By its id, from a queue that was stored, and again; the engine is handed the PNG."""
    data = saved(noise((128, 64)), "JPEG", quality=80)
    png = normalised(data)
    begins: dict[str, Any] = {"width": 128, "height": 64, "image_strength": 0.0}
    with client_of(gateway.url, "me") as client:
        name = client.post("/uploads", files={"image": ("a.jpg", data)}).json()["id"]
        assert len(blob(gateway, name)) <= len(data)
        first = submit(client, init_images=[name], **begins)
        end = time.monotonic() + 30
        while png not in [file.read_bytes() for file in (gateway.folder / "data" / "spool").glob(f"*{name}.png")]:
            assert time.monotonic() < end
            time.sleep(0.01)
        waits = submit(client, init_images=[name], **begins)
        gateway.stop()
        gateway.start()
        with client_of(gateway.url, "me") as again:
            for job in (first, waits, submit(again, init_images=[name], **begins)):
                assert drawn(again, job["job_id"]) == pixels(png)
            assert again.get(f"/uploads/{name}").content == png
            retried = again.post(f"/jobs/{waits['job_id']}/retry").json()
            assert drawn(again, retried["job_id"]) == pixels(png)
