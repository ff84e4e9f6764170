"""Cost of checking the disks: python -m benchmarks.storage

A check of the output and spool folders as before each claim and each submit, the stats before each commit, and the
check of an image against its record.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from pathlib import Path

from benchmarks.queue import BOUNDS, timed
from gateway.store.folder_health import Place, storage_of
from gateway.store.sqlite import SqliteStore
from tests.support import a_job

TIMES = 1000
IMAGE_BYTES = 1_500_000


async def measure() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("output", "spool", "models"):
            (folder / place).mkdir()
        health = storage_of(Place("the output folder", folder / "output"), folder / "spool", folder / "models")
        health.look()
        print("a look at two folders:", await timed(lambda: health.fault(("output", "spool")), TIMES))
        store = SqliteStore(folder / "data")
        await store.open()
        await store.submit(a_job(), BOUNDS)
        began = time.perf_counter()
        for _ in range(TIMES):
            store._database._check_files()
        print(f"the stats before a commit: {(time.perf_counter() - began) / TIMES * 1e6:.1f} us")
        print("a commit with them:", await timed(store.check, TIMES))
        await store.close()


def check_image() -> None:
    data = os.urandom(IMAGE_BYTES)
    began = time.perf_counter()
    hashlib.sha256(data).hexdigest()
    print(f"SHA-256 of {IMAGE_BYTES / 1e6:.1f} MB: {(time.perf_counter() - began) * 1000:.1f} ms")


if __name__ == "__main__":
    asyncio.run(measure())
    check_image()
