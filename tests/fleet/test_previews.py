"""Previews of running jobs in shared files: the newest are there, and nothing stays."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from gateway.events.previews import LEFT_S, Previews
from gateway.store.blobs import blob_folder

JOB, OTHER = "a" * 32, "b" * 32


def jpeg(n: int) -> str:
    return base64.b64encode(b"\xff\xd8" + bytes([n]) * 100).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blob_folder(tmp_path / "previews", is_shared=True).prepare()
    return tmp_path / "previews"


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.suffix == ".jpg"}


async def test_another_process_reads_the_newest_previews_and_a_job_leaves_none(folder: Path) -> None:
    runs, reads = (Previews(blob_folder(folder, is_shared=True)) for _ in range(2))
    addresses = [await runs.put(JOB, 1, jpeg(n)) for n in range(4)]
    other = await runs.put(OTHER, 2, jpeg(9))
    assert [await reads.get(address) for address in addresses] == [None, None, jpeg(2), jpeg(3)]
    await runs.drop(JOB)
    assert names(folder) == {other}
    assert await reads.get(addresses[-1]) is None


@pytest.mark.parametrize("address", ["../../etc/passwd", "/etc/passwd", "", "a b"])
async def test_an_address_that_no_process_made_is_not_read(folder: Path, address: str) -> None:
    with pytest.raises(ValueError, match="server-made"):
        await Previews(blob_folder(folder, is_shared=True)).get(address)


async def test_what_a_crashed_process_left_is_removed_later(folder: Path) -> None:
    crashed = Previews(blob_folder(folder, is_shared=True))
    old, new = await crashed.put(JOB, 1, jpeg(1)), await crashed.put(JOB, 1, jpeg(2))
    os.utime(folder / old, (time.time() - LEFT_S - 60,) * 2)
    await Previews(blob_folder(folder, is_shared=True)).sweep()
    assert names(folder) == {new}
