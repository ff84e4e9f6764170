"""The process that reads, so that a broken PDF or a bug in native code takes nothing else with it.

Knows frames in and frames out (`wire`): no job, no path, no network. Run as `python -m gateway.ocr.child --threads N`.
The models are loaded with the first page to read.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from typing import BinaryIO, assert_never

from engine.protocol import ModelLoaded, ModelLoading, PageRead, Reading
from gateway.ocr.packages import MODEL
from gateway.ocr.pages import Unreadable, count_pages, to_pictures
from gateway.ocr.reader import Reader
from gateway.ocr.wire import LENGTH, Answer, Counted, CountPages, Read, Refused, Request, framed, request

MAX_MEMORY_BYTES = 4 * 1024**3
"""Of address space. A page takes 0.7 GB of memory at most, 1.2 GB of addresses with one thread."""


class Child:
    """One request after the other, until the parent closes the pipe."""

    def __init__(self, answers: BinaryIO, threads: int) -> None:
        self._answers = answers
        self._threads = threads
        self._reader: Reader | None = None

    def do(self, asked: Request, document: bytes) -> None:
        try:
            match asked:
                case CountPages():
                    self._say(Counted(pages=count_pages(document)))
                case Read():
                    self._read(asked, document)
                case _:
                    assert_never(asked)
        except Unreadable as refusal:
            self._say(Refused(message=str(refusal)))
        except MemoryError:
            self._say(Refused(message="The document needs too much memory to read."))

    def _read(self, asked: Read, document: bytes) -> None:
        reader = self._loaded()
        pictures = to_pictures(document, asked.pages[asked.first :], asked.dpi)
        for page in range(asked.first, len(asked.pages) or 1):
            self._say(Reading(page=page))
            began = time.monotonic()
            picture = next(pictures)
            lines = reader.lines(picture)
            self._say(
                PageRead(
                    page=page,
                    width_px=picture.width,
                    height_px=picture.height,
                    lines=lines,
                    seconds=round(time.monotonic() - began, 3),
                )
            )

    def _loaded(self) -> Reader:
        if self._reader is None:
            self._say(ModelLoading(model=MODEL))
            began = time.monotonic()
            self._reader = Reader(self._threads)
            self._say(ModelLoaded(model=MODEL, seconds=round(time.monotonic() - began, 3)))
        return self._reader

    def _say(self, answer: Answer) -> None:
        self._answers.write(framed(answer.model_dump_json().encode()))
        self._answers.flush()


def main() -> None:
    """Answer until the parent closes the pipe, or is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    threads: int = parser.parse_args().threads
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not reach the pipe
    _limit_memory()
    waiting: queue.SimpleQueue[tuple[Request, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    child = Child(answers, threads)
    while True:
        child.do(*waiting.get())


def _listen(pipe: BinaryIO, waiting: queue.SimpleQueue[tuple[Request, bytes]]) -> None:
    """In a thread of its own, to leave at once when the parent does, also in the middle of a page."""
    try:
        while (head := _frame(pipe)) is not None and (document := _frame(pipe)) is not None:
            waiting.put((request.validate_json(head), document))
    finally:
        os._exit(0)


def _frame(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = pipe.read(size)
    return data if len(data) == size else None


def _limit_memory() -> None:
    """Linux only: macOS takes the limit and does not keep it, so there the bounds on pixels and pages alone hold."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


if __name__ == "__main__":
    main()
