"""What the tests of OCR share: written pictures and PDFs, and a service whose OCR child does as it is told."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from engine.client import Engine, EngineOptions
from gateway.images.output import OutputFolder
from gateway.models.library import Library
from gateway.models.user_models import LocalModel
from gateway.ocr.client import OcrOptions
from gateway.service.service import JobService, ServiceOptions
from gateway.store.sqlite import SqliteStore

CHILD = (sys.executable, "-m", "tests.support.ocr_child")
OBEDIENT = OcrOptions(command=CHILD, threads=1)
OBEDIENT_OCR = (
    "-c",
    """
import functools, sys
import api_main
from gateway import app
app.OcrOptions = functools.partial(app.OcrOptions, command=(sys.executable, "-m", "tests.support.ocr_child"))
api_main.main()
""",
)
"""A program that is the gateway, but for its OCR children."""


def written(text: str, size: tuple[int, int] = (640, 240), height_px: int = 40, ground: str = "white") -> Image.Image:
    """Black text in Pillow's own font."""
    image = Image.new("RGB", size, ground)
    ImageDraw.Draw(image).multiline_text((20, 20), text, fill="black", font=ImageFont.load_default(height_px))
    return image


def foreign(text: str) -> Image.Image:
    """A line of text, and below it one of strokes as letters have them in no script: Pillow's own font is Latin."""
    image = written(text)
    pen = ImageDraw.Draw(image)
    for n in range(24):
        x = 30 + 24 * n
        pen.arc((x, 150, x + 18, 182), 40 * n, 40 * n + 250, fill="black", width=3)
        pen.line((x + 4 * (n % 4), 150, x + 14, 178 - 5 * (n % 5)), fill="black", width=3)
    return image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def pdf(*pages: Image.Image) -> bytes:
    """A page each, at 72 dpi."""
    out = io.BytesIO()
    pages[0].save(out, "PDF", save_all=True, append_images=pages[1:])
    return out.getvalue()


def raw_pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalogue."""
    body, at = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        at.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in at)
    size = len(objects) + 1
    end = b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (size, trailer, len(body))
    return body + b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table) + end


def empty_pdf(pages: int, box: bytes = b"0 0 99 99") -> bytes:
    """Blank pages that all are the same object."""
    kids = b" ".join([b"3 0 R"] * pages)
    tree = b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, pages)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[%s]>>" % box
    return raw_pdf(b"<</Type/Catalog/Pages 2 0 R>>", tree, page)


def encrypted_pdf() -> bytes:
    """One page behind a password nobody knows."""
    lock = b"<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"ab" * 32, b"cd" * 32)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>"
    tree = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
    names = b"/Encrypt 4 0 R/ID[<%s><%s>]" % (b"00" * 16, b"00" * 16)
    return raw_pdf(b"<</Type/Catalog/Pages 2 0 R>>", tree, page, lock, trailer=names)


def script(*actions: str | dict[str, Any]) -> bytes:
    """A document for `tests.support.ocr_child`, which reads it as a PDF with a page an action."""
    return b"%PDF" + json.dumps([a if isinstance(a, dict) else {"do": a} for a in actions]).encode()


@asynccontextmanager
async def service_in(folder: Path, ocr: OcrOptions = OBEDIENT) -> AsyncIterator[JobService]:
    """A running service; no child is left behind."""
    weights = folder / "model" / "transformer"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "x.safetensors").touch()
    output = OutputFolder(folder / "output")
    output.prepare()
    fake_script = json.dumps({"step_seconds": 0.05})
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(EngineOptions(backend="fake", backoff_s=(0.0,), fake_script=fake_script)),
        library=Library(folder, default="toy", local={"toy": LocalModel(folder / "model", "flux2-klein-base-4b")}),
        output=output,
        spool=folder / "data" / "spool",
        options=ServiceOptions(abandon_grace_s=0.05),
        ocr=ocr,
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def pids_by(texts: Sequence[str]) -> list[int]:
    """The processes that read these pages, as `tests.support.ocr_child` says."""
    return [int(text.rpartition(" ")[2]) for text in texts]
