"""Delay of honest clients while hostile files are checked: python -m benchmarks.hostile_files [--root CHECKOUT]

For each kind of attack it prints the seconds of one submit, of one upload of 64x64, and the slowest /health/live; and
the peak memory for decoding an image of 20 MiB from base64.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.live_probe import LiveProbe
from tests.images.test_hostile_files import a_png
from tests.support.hostile_files import jpeg_of_scans, png_of_packed_texts
from tests.support.live import ROOT, live

MEMORY = """
import base64, os, tracemalloc
from gateway.images.codec import base64_image
text = base64.b64encode(os.urandom(20 * 2**20)).decode()
tracemalloc.start()
base64_image(text)
print(f"{tracemalloc.get_traced_memory()[1] / 2**20:.0f}")
"""
"""20 MiB of image bytes."""


def waited(client: httpx.Client, path: str, body: dict[str, Any]) -> str:
    began = time.monotonic()
    answer = client.post(path, json=body)
    return f"{time.monotonic() - began:.2f} s ({answer.status_code})"


def attacked(url: str, path: str, image: bytes, count: int, names: int) -> dict[str, str]:
    """Measure under `count` simultaneous requests with this image, from so many X-Client-Ids."""
    body = json.dumps({"image": base64.b64encode(image).decode()}).encode()

    def attack(n: int) -> None:
        headers = {"Content-Type": "application/json", "X-Client-Id": f"attacker {n % names}"}
        httpx.post(url + path, content=body, headers=headers, timeout=300, verify=False)

    with (
        LiveProbe(url) as probe,
        ThreadPoolExecutor(count + 3) as pool,
        httpx.Client(base_url=url, timeout=300, verify=False) as honest,
    ):
        began = time.monotonic()
        attacks = [pool.submit(attack, n) for n in range(count)]
        time.sleep(0.5)
        submit = pool.submit(waited, honest, "/api/v1/generate", {"prompt": "x", "width": 64, "height": 64, "steps": 1})
        upload = pool.submit(waited, honest, "/api/v1/uploads", {"image": base64.b64encode(a_png()).decode()})
        rows = {"submit": submit.result(), "upload": upload.result()}
        for each in attacks:
            each.result()
        rows["all attacks over after"] = f"{time.monotonic() - began:.1f} s"
        rows["/health/live at most"] = f"{probe.slowest_s() * 1000:.0f} ms"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose gateway is measured")
    root = parser.parse_args().root.resolve()
    texts, scans = png_of_packed_texts(), jpeg_of_scans()
    kinds = {
        "eight PNGs of 8,000 packed texts": ("/sdapi/v1/png-info", texts, 8, 8),
        "the same to /api/v1/images/drawing": ("/api/v1/images/drawing", texts, 8, 8),
        "four JPEGs of 20,000 scans, one owner": ("/api/v1/uploads", scans, 4, 1),
        "sixteen JPEGs of 20,000 scans, as many names": ("/api/v1/uploads", scans, 16, 16),
        "sixteen JPEGs of 31 scans of 16.8 MP": ("/api/v1/uploads", jpeg_of_scans(20, 4096), 16, 16),
    }
    for name, (path, image, count, names) in kinds.items():
        with tempfile.TemporaryDirectory() as folder, live(Path(folder), root=root) as gateway:
            print(f"{name} ({len(image) / 1e6:.1f} MB):", attacked(gateway.url, path, image, count, names), flush=True)
    told = subprocess.run([sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, check=True)
    print(f"decoding base64 of 20 MiB: {told.stdout.strip()} MiB at the peak, the picture included, its text not")


if __name__ == "__main__":
    main()
