"""Files made to be slow: each costs little, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from adapters.sdapi.gif_comment import comment
from engine.safetensors import inspect
from gateway.errors import InvalidRequest, TooManyFiles, Unavailable
from gateway.images import file_pool
from gateway.images import file_texts as picture_text
from gateway.images.decoder import ImageDecoder
from gateway.images.decoder_child import Refused, normalised
from gateway.images.file_budget import Budget, OverBudget
from gateway.images.file_pool import FilePool
from gateway.images.file_texts import texts
from gateway.images.header import MOST_SCANS, TooMuchWork, check_work, orientation
from gateway.models.lora_metadata import notes_of
from gateway.models.loras import HEADER_MOST_BYTES, LoraLibrary
from gateway.round_robin import Bounds, RoundRobin, Share
from tests.support.hostile_files import (
    exif_of_entries,
    gif_of_blocks,
    jpeg_of_scans,
    png_of_empty_chunks,
    png_of_exif,
    png_of_packed_texts,
)
from tests.support.live import Live, live
from tests.support.native import client_of, submit

FREEZE_S = 8.0
"""Far more than any of this takes, far less than it took."""
A, B = Share("peer:1", "client:a"), Share("peer:1", "client:b")
OTHER = Share("peer:2", "client:c")


def a_png(edge_px: int = 64, colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (edge_px, edge_px), colour).save(out, "PNG")
    return out.getvalue()


# ---- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["a", ""])
@pytest.mark.parametrize("distinct", [False, True])
def test_metadata_compressed_texts_of_a_file_share_one_budget(
    keyword: str, distinct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-32: chunks of one keyword, of many, and of none cost as much as a few do."""
    budgets = []

    class Counted(Budget):
        def __init__(self) -> None:
            super().__init__()
            budgets.append(self)

    monkeypatch.setattr(picture_text, "Budget", Counted)
    found = texts(png_of_packed_texts(2000, keyword=keyword, distinct=distinct))
    assert len(found) <= 64
    assert sum(map(len, found.values())) <= 4 * 1024 * 1024
    assert len(budgets) == 1


def test_metadata_text_already_present_is_not_decompressed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """S-32."""
    unpacked = []
    inflated = Budget.inflated
    monkeypatch.setattr(Budget, "inflated", lambda *args: unpacked.append(1) or inflated(*args))
    assert len(texts(png_of_packed_texts(3000))["a"]) == 255_000
    assert len(unpacked) == 1


def test_metadata_damaged_text_costs_no_more_than_long_text() -> None:
    budget = Budget(text_bytes=300_000)
    assert budget.inflated(b"no zlib", 256 * 1024) is None
    with pytest.raises(OverBudget):
        budget.inflated(b"no zlib", 256 * 1024)


def test_text_budget_ends_by_part_count_and_by_time() -> None:
    with pytest.raises(OverBudget):
        [Budget(parts=3).visit() for _ in range(1)] + [b.visit() for b in [Budget(parts=1)] * 2]
    with pytest.raises(OverBudget):
        Budget(until_s=0.0).spend(1)


@pytest.mark.parametrize(
    "data",
    [
        png_of_empty_chunks(1_500_000),
        b"\xff\xd8" + b"\xff\xfe\0\2" * 4_000_000,
        b"\xff\xd8" + b"\xff" * 16_000_000,
        b"RIFF\0\0\0\0WEBP" + b"ABCD\0\0\0\0" * 2_000_000,
        png_of_exif(exif_of_entries()),
    ],
    ids=["chunks", "segments", "fill", "riff", "exif"],
)
def test_metadata_texts_of_files_with_many_parts_are_ignored(data: bytes) -> None:
    """S-32: a bound on what is visited."""
    began = time.process_time()
    assert texts(data) == {}
    assert time.process_time() - began < FREEZE_S


def test_image_gif_comments_of_many_blocks_are_ignored() -> None:
    """S-32."""
    assert comment(gif_of_blocks(1000)) == "c"
    assert comment(gif_of_blocks(1000, comment=True)) == "a" * 1000
    assert comment(gif_of_blocks(2_000_000)) is None
    assert comment(gif_of_blocks(2_000_000, comment=True)) is None


def test_lora_with_oversized_header_is_read_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-35: the header is not even read, and not looked at again while the file stays as it is."""
    size = HEADER_MOST_BYTES + 1
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", size) + b" " * size)
    (tmp_path / "bad.json").write_text('{"description": "words"}')
    looks: list[object] = []
    heads: list[Path] = []
    monkeypatch.setattr(
        "gateway.models.loras.inspect", lambda file, **most: heads.append(file) or inspect(file, **most)
    )
    monkeypatch.setattr("gateway.models.loras.notes_of", lambda *args: looks.append(args) or notes_of(*args))
    library = LoraLibrary([tmp_path])
    for _ in range(3):
        (bad,) = [lora for lora in library.all() if lora.name == "bad"]
        assert bad.trouble is not None
        assert bad.notes.description == "words"
    assert len(set(heads)) == len(heads)
    assert [file.name for file in heads].count("bad.safetensors") == 1
    assert len([look for look in looks if look[0].name == "bad.safetensors"]) == 1  # type: ignore[index]
    (tmp_path / "bad.json").write_text('{"description": "other words"}')
    assert next(lora for lora in library.all() if lora.name == "bad").notes.description == "other words"


# ---- what is not decoded -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        jpeg_of_scans(MOST_SCANS, 64),
        jpeg_of_scans(20_000, 64),
        jpeg_of_scans(40, 4096),
        b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000,
        png_of_empty_chunks(60_000),
        b"RIFF\0\0\0\0WEBP" + b"ABCD\0\0\0\0" * 60_000,
    ],
    ids=["scans", "many scans", "scans of many pixels", "segments", "chunks", "riff"],
)
def test_image_slow_to_decode_is_refused_by_header(data: bytes) -> None:
    """S-31."""
    began = time.process_time()
    with pytest.raises(Refused, match="too many"):
        normalised(data)
    assert time.process_time() - began < FREEZE_S


def test_image_valid_progressive_files_and_thumbnails_are_decoded() -> None:
    """S-31: progressive ones of the largest size, of four colours, with restarts, with a thumbnail of scans in EXIF."""
    big = Image.effect_noise((512, 512), 60).convert("RGB").resize((4096, 4096))
    for mode, options in (("RGB", {}), ("CMYK", {}), ("RGB", {"restart_marker_rows": 1})):
        out = io.BytesIO()
        big.convert(mode).save(out, "JPEG", progressive=True, **options)
        check_work(out.getvalue())
    assert Image.open(io.BytesIO(normalised(out.getvalue()))).size == (4096, 4096)
    small = jpeg_of_scans(0, 64)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 20_000) + (b"Exif\0\0" + b"\xff\xda" * 10_000)[:20_000]
    check_work(small[:2] + thumbnail + small[2:])
    with pytest.raises(TooMuchWork):
        check_work(b"\xff\xd8" + b"trash" + jpeg_of_scans(200, 64)[2:])  # libjpeg skips what stands between segments


def test_image_exif_with_many_entries_is_cheap_and_orientation_is_read_in_any_byte_order() -> None:
    """S-31: each of 65,535 entries named 15 MB, which Pillow would copy once for each."""
    exif = exif_of_entries(value_bytes=15_000_000) + bytes(15_000_000)
    began = time.process_time()
    assert Image.open(io.BytesIO(normalised(png_of_exif(exif)))).size == (8, 6)
    assert time.process_time() - began < FREEZE_S
    for order, sign in (("<", b"II*\0"), (">", b"MM\0*")):
        tail = struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)
        assert orientation(sign + tail) == 6
        assert Image.open(io.BytesIO(normalised(png_of_exif(sign + tail)))).size == (6, 8)
    assert orientation(b"", b'<x tiff:Orientation="8"/>') == 8
    assert orientation(b"nothing", b"nothing") == 1


# ---- turns -------------------------------------------------------------------------------------------


async def test_image_decoder_queue_alternates_owners_and_addresses() -> None:
    """S-31: an address with a hundred names has one turn of two, each of its names one of its own."""
    turns, served = RoundRobin(slots=1, bounds=Bounds((99, 10**9), (999, 10**9), (999, 10**9))), []

    async def one(share: Share) -> None:
        async with turns.slot(share):
            served.append(share.owner)
            await asyncio.sleep(0)

    first = asyncio.create_task(one(A))
    await asyncio.sleep(0)
    work = [one(A) for _ in range(4)] + [one(Share("peer:1", f"name {n}")) for n in range(3)] + [one(OTHER)] * 1
    await asyncio.gather(first, *work)
    assert served.index("client:c") <= 3  # the first two turns were taken before it came
    assert served.index("name 0") < served.index("client:a", 3)
    assert len(served) == 9


async def test_image_decoder_slots_are_one_per_owner_and_one_address_leaves_one_free() -> None:
    """S-31: long work of one address never holds all slots; short work of it may take the last one."""
    turns = RoundRobin(slots=3)
    await turns.take(A)
    again = asyncio.create_task(turns.take(A))
    await turns.take(B)
    third = asyncio.create_task(turns.take(Share("peer:1", "client:d")))
    await asyncio.sleep(0.01)
    assert not again.done()
    assert not third.done()
    await asyncio.wait_for(turns.take(Share("peer:1", "client:e"), is_short=True), 1)
    turns.give_back(Share("peer:1", "client:e"))
    await asyncio.wait_for(turns.take(OTHER), 1)
    turns.give_back(A)
    third.cancel()
    again.cancel()
    await asyncio.gather(third, again, return_exceptions=True)
    turns.give_back(B)
    turns.give_back(OTHER)
    for share in (A, B, OTHER):
        await asyncio.wait_for(turns.take(share), 1)  # nothing is lost by a cancel
    assert turns.waiting == 0


async def test_image_decoder_queue_is_bounded_per_owner_per_address_and_in_total() -> None:
    """S-31."""
    turns = RoundRobin(slots=1, bounds=Bounds(owner=(1, 100), peer=(2, 150), total=(3, 1000)))
    await turns.take(OTHER)
    waiting = [asyncio.create_task(turns.take(A, 90))]
    await asyncio.sleep(0)
    for share, error in ((A, TooManyFiles), (Share("peer:1", "z"), TooManyFiles)):
        with pytest.raises(error) as refused:
            await turns.take(share, 90)
        assert refused.value.retry_after_s
    waiting += [asyncio.create_task(turns.take(Share(f"peer:{n}", "x"))) for n in (3, 4)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await turns.take(Share("peer:5", "x"))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_image_decoder_job_keeps_slot_after_disconnect_and_stuck_pool_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-21."""
    monkeypatch.setattr(file_pool, "STUCK_S", 0.05)
    pool, gate = FilePool(1), threading.Event()
    gone = asyncio.create_task(pool.run(A, gate.wait))
    await asyncio.sleep(0.02)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    next_one = asyncio.create_task(pool.read(B, len, b"abc"))
    await asyncio.sleep(0.1)
    assert not next_one.done()
    assert pool.trouble is not None
    gate.set()
    assert await next_one == 3
    assert pool.trouble is None
    pool.close()


# ---- children ----------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
while True:
    size = int.from_bytes(sys.stdin.buffer.read(4), 'big')
    data = sys.stdin.buffer.read(size)
    if not data: os._exit(0)
    if data == b'once' and not os.path.exists(sys.argv[1]):
        open(sys.argv[1], 'w').close(); os.kill(os.getpid(), signal.SIGKILL)
    if data == b'die': os._exit(9)
    if data == b'hang': time.sleep(60)
    sys.stdout.buffer.write(b'\\0\\0\\0\\3+ok'); sys.stdout.buffer.flush()
"""


async def test_image_decoder_killed_is_retried_once_and_start_failure_is_503(tmp_path: Path) -> None:
    """S-31: a death from outside is never the client's fault."""
    (tmp_path / "child.py").write_text(CHILD)
    command = (sys.executable, str(tmp_path / "child.py"), str(tmp_path / "mark"))
    decoder = ImageDecoder(deadline_s=1.0, command=command)
    assert await decoder.normalise(b"once") == b"ok"
    (pid,) = decoder.idle_pids
    os.kill(pid, signal.SIGKILL)
    assert await decoder.normalise(b"fine") == b"ok"
    for bad in (b"die", b"hang"):
        with pytest.raises(InvalidRequest):
            await decoder.normalise(bad)
    await decoder.close()
    for broken in ("/no/such/program", sys.executable):
        decoder = ImageDecoder(command=(broken, "-c", "raise SystemExit(1)"))
        with pytest.raises(Unavailable) as refused:
            await decoder.normalise(b"fine")
        assert refused.value.retry_after_s
        await decoder.close()


# ---- over the wire -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("hostile"), config={"store": {"inputs_gb": 0.004}}) as started:
        yield started


def test_image_uploads_and_submits_continue_while_hostile_files_are_decoded(gateway: Live) -> None:
    """S-30 to S-32: texts, scans, chunks, on every route that looks at files, under many names of one address."""
    text = base64.b64encode(png_of_packed_texts()).decode()
    scans = base64.b64encode(jpeg_of_scans()).decode()
    chunks = base64.b64encode(png_of_empty_chunks(300_000)).decode()

    def attack(n: int) -> int:
        path, body = (
            ("/sdapi/v1/png-info", {"image": text}),
            ("/api/v1/images/drawing", {"image": text}),
            ("/sdapi/v1/extra-single-image", {"image": text, "upscaler_1": "Lanczos"}),
            ("/api/v1/uploads", {"image": scans}),
            ("/api/v1/uploads", {"image": chunks}),
        )[n % 5]
        headers = {"X-Client-Id": f"attacker {n}"}
        return httpx.post(gateway.url + path, json=body, headers=headers, timeout=120).status_code

    with ThreadPoolExecutor(16) as pool, client_of(gateway.url) as honest:
        attacks = [pool.submit(attack, n) for n in range(20)]
        time.sleep(0.3)
        began = time.monotonic()
        submit(honest)
        assert honest.post("/uploads", json={"image": base64.b64encode(a_png()).decode()}).status_code == 200
        assert httpx.get(gateway.url + "/health/live", timeout=FREEZE_S).status_code == 200
        assert time.monotonic() - began < FREEZE_S
        statuses = {attack.result() for attack in attacks}
    assert statuses <= {200, 400, 422, 429, 503}
    assert httpx.get(gateway.url + "/health/ready").status_code == 200


def test_image_upload_is_private_to_owner_and_equal_uploads_belong_to_both(gateway: Live) -> None:
    """S-34: another owner's id is as one that never was, on every route that takes one."""
    image, other = (base64.b64encode(a_png(48, colour)).decode() for colour in ("blue", "green"))
    with client_of(gateway.url, "mine") as mine, client_of(gateway.url, "theirs") as theirs:
        name = mine.post("/uploads", json={"image": image}).json()["id"]
        assert mine.get(f"/uploads/{name}").status_code == 200
        assert theirs.get(f"/uploads/{name}").status_code == 404
        said: dict[str, Any] = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
        bodies = (
            ("/generate", {**said, "init_images": [name]}),
            ("/generate", {**said, "init_images": [other], "mask": name}),
            ("/generate", {**said, "reference_images": [name]}),
            ("/generate", {**said, "control": {"type": "depth", "image": name}}),
            ("/upscale", {"image": name}),
        )
        for path, body in bodies:
            answer = theirs.post(path, json=body)
            assert answer.status_code == 400
            assert "no such upload" in answer.text
        assert mine.post("/generate", json={**said, "init_images": [name]}).status_code == 200
        assert theirs.post("/uploads", json={"image": image}).json()["id"] == name
        assert theirs.get(f"/uploads/{name}").status_code == 200


def test_image_uploads_per_address_are_bounded_and_reported(gateway: Live) -> None:
    """S-34: 507 with Retry-After, under whichever names; what is there already may be sent again."""
    noise = [Image.effect_noise((600, 600), 90 + n).convert("RGB") for n in range(4)]
    statuses, sent = [], []
    for n, picture in enumerate(noise):
        out = io.BytesIO()
        picture.save(out, "PNG")
        sent.append(base64.b64encode(out.getvalue()).decode())
        with client_of(gateway.url, f"name {n}") as client:
            answer = client.post("/uploads", json={"image": sent[-1]})
            statuses.append(answer.status_code)
    assert statuses[0] == 200
    assert statuses[-1] == 507
    assert answer.headers["retry-after"]
    with client_of(gateway.url, "name 0") as client:
        again = client.post("/uploads", json={"image": sent[0]})
        assert again.status_code == 200
        assert again.json()["bytes"] == len(client.get(f"/uploads/{again.json()['id']}").content)
    assert json.loads(answer.text)
