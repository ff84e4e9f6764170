"""From what a client asked of a document to a plan with nothing open. Pure."""

from __future__ import annotations

import math

from engine.protocol import Frozen
from gateway.errors import InvalidRequest
from gateway.jobs.plans import Ocr

DEFAULT_DPI = 200.0
MAX_DPI = 600.0
"""More is rendered as this much. Source: Xinference's bound for PDFs."""


class OcrRequest(Frozen):
    """What a client asked for beside the document. None means: the client did not say."""

    model: str | None = None
    """The reader: rapidocr, or a vision model of the settings."""
    pages: tuple[int, ...] | None = None
    """Of a PDF, counted from 1, in the order of the answer."""
    dpi: float | None = None


def is_pdf(document: bytes) -> bool:
    """By its bytes: a content type may say anything. Some writers put a byte order mark or blanks first."""
    return document[:64].lstrip(b"\xef\xbb\xbf\r\n\t \0").startswith(b"%PDF")


def resolve(request: OcrRequest, model: str, document: str, page_count: int | None, max_pages: int) -> Ocr:
    """`document` is the name of its blob, `page_count` what the PDF has; None: it is a picture, which has no pages.

    Raises: InvalidRequest naming the parameter.
    """
    dpi = DEFAULT_DPI if request.dpi is None else request.dpi
    if not math.isfinite(dpi) or dpi <= 0:
        raise InvalidRequest("dpi must be a number above 0.", param="dpi")
    if page_count is None:
        return Ocr(model=model, document=document)
    pages = _pages(request.pages, page_count, max_pages)
    return Ocr(model=model, document=document, pages=pages, dpi=min(dpi, MAX_DPI))


def _pages(asked: tuple[int, ...] | None, count: int, most: int) -> tuple[int, ...]:
    number = count if asked is None else len(asked)
    if not number:
        empty = ("The PDF has no pages.", "image") if asked is None else ("pages is empty.", "pages")
        raise InvalidRequest(empty[0], param=empty[1])
    if number > most:  # before there is a list of them: a PDF may claim any number
        raise InvalidRequest(
            f"At most {most} pages are read in one request, and these are {number}; choose some with pages.",
            param="pages",
        )
    pages = tuple(range(1, count + 1)) if asked is None else asked
    for page in pages:
        if not 1 <= page <= count:
            raise InvalidRequest(f"The PDF has {count} pages, counted from 1.", param="pages")
    return pages
