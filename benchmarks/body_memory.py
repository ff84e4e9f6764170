"""Memory used by large request bodies: python -m benchmarks.body_memory

24 bodies of 26 MiB at once, on each route that takes images and in both encodings, fast and in pieces: the peak of the
gateway's memory, and its memory some seconds later. The engine is the fake one.
"""

from __future__ import annotations

import argparse
import base64
import collections
import concurrent.futures
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from PIL import Image

from tests.support.live import Live

MIB = 2**20
SETTLE_S = 14.0
PIECE_BYTES = 256 * 1024


def noise(size: int) -> bytes:
    """PNG of about `size` bytes."""
    edge = int((size / 3) ** 0.5)
    file = io.BytesIO()
    Image.frombytes("RGB", (edge, edge), os.urandom(edge * edge * 3)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def bodies(body_bytes: int) -> dict[str, tuple[str, str, bytes]]:
    """Path, content type and body of each case."""
    text = base64.b64encode(noise(body_bytes * 3 // 4 - 4096)).decode()
    form = httpx.Request(
        "POST",
        "http://localhost",
        data={"prompt": "x", "size": "64x64"},
        files={"image": ("x.png", noise(19 * MIB), "image/png")},
    )
    small = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
    kind, upload = "application/json", json.dumps({"image": text}).encode()
    return {
        "/sdapi/v1/img2img": ("/sdapi/v1/img2img", kind, json.dumps({**small, "init_images": [text]}).encode()),
        "/v1/images/edits JSON": (
            "/v1/images/edits",
            kind,
            json.dumps({"prompt": "x", "size": "64x64", "image": text}).encode(),
        ),
        "/v1/images/edits form": ("/v1/images/edits", form.headers["content-type"], form.read()),
        "/api/v1/uploads": ("/api/v1/uploads", kind, upload),
    }


def send(url: str, kind: str, body: bytes, pause_s: float) -> int:
    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), PIECE_BYTES):
            yield body[at : at + PIECE_BYTES]
            time.sleep(pause_s)

    headers = {"content-type": kind, "content-length": str(len(body))}
    try:
        content = pieces() if pause_s else body
        return httpx.post(url, content=content, headers=headers, timeout=300).status_code
    except httpx.TransportError:
        return 0


def burst(gateway: Live, title: str, case: tuple[str, str, bytes], count: int, pause_s: float) -> None:
    path, kind, body = case
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    before, peak, ended = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = collections.Counter(pool.map(lambda _: send(gateway.url + path, kind, body, pause_s), range(count)))
    time.sleep(SETTLE_S)
    ended.set()
    watcher.join()
    after = process.memory_info().rss
    told = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
    print(
        f"{title:30} before {before / MIB:5.0f}, peak {peak / MIB:5.0f}, after {after / MIB:5.0f} MiB RSS; {told}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24, help="bodies at once")
    parser.add_argument("--mib", type=int, default=26, help="size of each")
    parser.add_argument("--slow", type=float, default=0.05, help="seconds between pieces of 256 KiB of slow senders")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        gateway = Live(Path(name), config={"access": {}}).start()
        try:
            for title, case in bodies(args.mib * MIB).items():
                burst(gateway, title, case, args.count, 0)
                burst(gateway, f"{title}, slow", case, args.count, args.slow)
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
