"""Rendering time of PDF pages, and the time limit for endless ones: python -m benchmarks.pdf_pages

Each runs in a child process, as in the gateway; `--render-s` is the setting `ocr.render_s` (S-31).
"""

from __future__ import annotations

import argparse
import asyncio
import time

from gateway.jobs.plans import Ocr
from gateway.ocr.client import OcrClient, OcrOptions, OcrRefused
from gateway.ocr.pages import to_images
from tests.ocr.test_ocr_hostile import BEARABLE, ENDLESS
from tests.support.ocr import pdf, written

TEXT = "\n".join(f"{number} An honest page of an invoice, line by line" for number in range(40))


def honest() -> None:
    """Time of rendering alone, after a first page that loads PDFium."""
    document = pdf(*[written(TEXT, size=(595, 842), height_px=16)] * 11)
    took = []
    began = time.perf_counter()
    for _ in to_images(document, range(1, 12), 200.0):
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
    print(f"an A4 page at 200 dpi: {sorted(took[1:])[5]:.3f} s in the median, {max(took[1:]):.3f} s at most")
    for made in BEARABLE:
        began = time.perf_counter()
        next(to_images(made(), (1,), 200.0))
        print(f"one that only looks endless: {time.perf_counter() - began:.3f} s")


async def endless(render_s: float) -> None:
    client = OcrClient(OcrOptions(threads=1, render_s=render_s))
    try:
        for made in ENDLESS:
            began = time.perf_counter()
            try:
                async for _ in client.read(Ocr(document="a" * 64, pages=(1,)), made(), 0):
                    pass
                print(f"{made.__name__}: read")
            except OcrRefused:
                print(f"{made.__name__}, {len(made())} bytes: given up after {time.perf_counter() - began:.1f} s")
    finally:
        await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--render-s", type=float, default=OcrOptions().render_s)
    said = parser.parse_args()
    honest()
    asyncio.run(endless(said.render_s))
