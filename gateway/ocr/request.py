"""OCR request: from what a client sent with a document to a complete plan. Pure."""

from __future__ import annotations

import math

from engine.protocol import Frozen
from gateway.errors import InvalidRequest
from gateway.jobs.plans import Ocr

DEFAULT_DPI = 200.0
MAX_DPI = 600.0
"""A higher resolution is reduced to this. Source: Xinference's bound for PDFs."""


class OcrRequest(Frozen):
    """A client's request beside the document. None means: not in the request."""

    model: str | None = None
    """The reader: rapidocr, or a vision model of the settings."""
    pages: tuple[int, ...] | None = None
    """Pages of a PDF, counted from 1, in the order of the answer."""
    dpi: float | None = None


def is_pdf(document: bytes) -> bool:
    """Whether the bytes are a PDF: a content type may be wrong. Some writers put a BOM or blanks first."""
    return document[:64].lstrip(b"\xef\xbb\xbf\r\n\t \0").startswith(b"%PDF")


def resolve(request: OcrRequest, model: str, document: str, page_count: int | None, max_pages: int) -> Ocr:
    """The plan. `document` is the name of its blob, `page_count` that of the PDF; None: it is an image, without pages.

    Raises: InvalidRequest naming the parameter.
    """
    dpi = DEFAULT_DPI if request.dpi is None else request.dpi
    if not math.isfinite(dpi) or dpi <= 0:
        raise InvalidRequest("dpi must be a number above 0.", param="dpi")
    if page_count is None:
        return Ocr(model=model, document=document)
    pages = _pages(request.pages, page_count, max_pages)
    return Ocr(model=model, document=document, pages=pages, dpi=min(dpi, MAX_DPI))


def _pages(requested: tuple[int, ...] | None, count: int, most: int) -> tuple[int, ...]:
    number = count if requested is None else len(requested)
    if not number:
        empty = ("The PDF has no pages.", "image") if requested is None else ("pages is empty.", "pages")
        raise InvalidRequest(empty[0], param=empty[1])
    if number > most:  # before a list of them is made: a PDF may claim any number
        raise InvalidRequest(
            f"At most {most} pages are read in one request, and these are {number}; choose some with pages.",
            param="pages",
        )
    pages = tuple(range(1, count + 1)) if requested is None else requested
    for page in pages:
        if not 1 <= page <= count:
            raise InvalidRequest(f"The PDF has {count} pages, counted from 1.", param="pages")
    return pages
