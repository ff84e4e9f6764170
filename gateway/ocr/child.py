"""Child process of OCR, so that a broken PDF or a bug in native code harms nothing else.

Knows frames in and frames out (`wire`): no job, no network. Run as `python -m gateway.ocr.child --threads N`, or with
`--vision FOLDER --name NAME` to read with a vision model. The reader is loaded with the first page.
"""

from __future__ import annotations

import argparse
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, assert_never

from engine.protocol import ModelLoaded, ModelLoading
from gateway.framing import framed, limit_memory, own_pipes, read_frame
from gateway.jobs.facts import PageRead, Reading
from gateway.ocr.packages import MODEL
from gateway.ocr.pages import Unreadable, count_pages, to_images
from gateway.ocr.reader import PageText, Reader
from gateway.ocr.vision import VisionReader
from gateway.ocr.wire import (
    Answer,
    Counted,
    CountPages,
    NotLoaded,
    Opening,
    Read,
    Refused,
    Rendered,
    Request,
    request_adapter,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_MEMORY_BYTES = 4 * 1024**3
"""Limit of the address space. A page takes up to 0.7 GB of memory, 1.2 GB of addresses with one thread."""


class PageReader(Protocol):
    """A reader: a model in memory."""

    def read(self, image: Image, budget_s: float | None, progress: Callable[[float], object]) -> PageText: ...


class Child:
    """Request loop: one request after the other, until the parent closes the pipe."""

    def __init__(self, answers: BinaryIO, name: str, load: Callable[[], PageReader]) -> None:
        self._answers = answers
        self._name = name
        self._load = load
        self._reader: PageReader | None = None

    def do(self, request: Request, document: bytes) -> None:
        try:
            match request:
                case CountPages():
                    self._say(Opening())
                    self._say(Counted(pages=count_pages(document)))
                case Read():
                    self._read(request, document)
                case _:
                    assert_never(request)
        except Unreadable as refusal:
            self._say(Refused(message=str(refusal)))
        except MemoryError:
            self._say(Refused(message="The document needs too much memory to read."))

    def _read(self, request: Read, document: bytes) -> None:
        reader = self._loaded()
        if reader is None:
            return self._say(NotLoaded())
        images = to_images(document, request.pages[request.first :], request.dpi)
        for page in range(request.first, len(request.pages) or 1):
            self._say(Reading(page=page))
            began = time.monotonic()
            image = next(images)
            self._say(Rendered())
            result = reader.read(image, request.page_s, partial(self._tell, page))
            self._say(
                PageRead(
                    page=page,
                    width_px=image.width,
                    height_px=image.height,
                    lines=result.lines,
                    unread=result.unread,
                    seconds=round(time.monotonic() - began, 3),
                )
            )

    def _tell(self, page: int, part: float) -> None:
        if (percent := min(99, int(100 * part))) > 0:
            self._say(Reading(page=page, percent=percent))

    def _loaded(self) -> PageReader | None:
        """The reader; None if it cannot be loaded, which is tried again with the next document."""
        if self._reader is None:
            self._say(ModelLoading(model=self._name))
            began = time.monotonic()
            try:
                self._reader = self._load()
            except Exception:
                traceback.print_exc()  # the parent logs stderr
                return None
            self._say(ModelLoaded(model=self._name, seconds=round(time.monotonic() - began, 3)))
        return self._reader

    def _say(self, answer: Answer) -> None:
        self._answers.write(framed(answer.model_dump_json().encode()))
        self._answers.flush()


def main() -> None:
    """Answer requests until the parent closes the pipe, or ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vision", type=Path)
    parser.add_argument("--name", default=MODEL)
    arguments = parser.parse_args()
    threads: int = arguments.threads
    vision: Path | None = arguments.vision
    requests, answers = own_pipes()
    waiting: queue.SimpleQueue[tuple[Request, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    if vision is None:
        limit_memory(MAX_MEMORY_BYTES)
        child = Child(answers, arguments.name, lambda: Reader(threads))
    else:
        child = Child(answers, arguments.name, lambda: VisionReader(vision))
    while True:
        child.do(*waiting.get())


def _listen(pipe: BinaryIO, waiting: queue.SimpleQueue[tuple[Request, bytes]]) -> None:
    """Read requests in a thread of its own, to exit as soon as the parent does, even in the middle of a page."""
    try:
        while (head := read_frame(pipe)) is not None and (document := read_frame(pipe)) is not None:
            waiting.put((request_adapter.validate_json(head), document))
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
