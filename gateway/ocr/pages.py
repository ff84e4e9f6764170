"""Pages of a document as bounded images; runs in the child. PDFs are untrusted, PNGs come from the image decoder."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from pypdfium2 import PdfDocument

MAX_PIXELS = 16_777_216
MAX_EDGE_PX = 8192
POINTS_PER_INCH = 72.0


class Unreadable(Exception):
    """The document is refused; the text is a sentence for the client."""


def count_pages(pdf: bytes) -> int:
    """Number of pages. Raises: Unreadable."""
    with opened(pdf) as document:
        return len(document)


def to_images(document: bytes, pages: Sequence[int], dpi: float) -> Iterator[Image]:
    """One RGB image a page, rendered when it is requested; without pages the document is a PNG, the only image.

    Raises: Unreadable.
    """
    if not pages:
        yield _flat(document)
        return
    with opened(document) as pdf:
        for page in pages:
            yield _render(pdf, page, dpi)


@contextmanager
def opened(pdf: bytes) -> Iterator[PdfDocument]:
    """The opened PDF. Raises: Unreadable."""
    import pypdfium2
    from pypdfium2 import raw

    # PDFium keeps its last error, and a PDF without pages sets none: the error of the previous PDF would be reported.
    raw.FPDF_LoadMemDocument(b"-", 1, None)
    try:
        document = pypdfium2.PdfDocument(pdf)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD:
            raise Unreadable("The PDF is encrypted; send it without a password.") from None
        raise Unreadable("The PDF is damaged or cut off.") from None
    try:
        yield document
    finally:
        document.close()


def _render(pdf: PdfDocument, number: int, dpi: float) -> Image:
    """Page `number`, counted from 1, at `dpi`, or smaller if it would exceed the bounds."""
    import pypdfium2

    try:
        page = pdf[number - 1]
        width, height = page.get_size()
        image: Image = page.render(scale=scale_of(width, height, dpi)).to_pil().convert("RGB")
        page.close()
    except (pypdfium2.PdfiumError, IndexError, ValueError):
        raise Unreadable(f"Page {number} of the PDF cannot be rendered.") from None
    return image


def scale_of(width_pt: float, height_pt: float, dpi: float) -> float:
    """Pixels a point at `dpi`; less if the page would have more than MAX_PIXELS, or more than MAX_EDGE_PX on a side.

    Raises: ValueError for a page without a size.
    """
    if width_pt <= 0 or height_pt <= 0:
        raise ValueError("no size")
    # A little less than the bounds, because the renderer rounds up.
    by_edge = (MAX_EDGE_PX - 1) / max(width_pt, height_pt)
    by_area = math.sqrt(MAX_PIXELS / (width_pt * height_pt)) * 0.999
    return min(dpi / POINTS_PER_INCH, by_edge, by_area)


def _flat(png: bytes) -> Image:
    """The image on a background on which it is readable: text on transparency is meant to be put on one."""
    from PIL import Image

    from gateway.ocr.ground import on_ground

    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.load()
        if image.mode != "RGBA":
            return image.convert("RGB")
        return on_ground(image)
