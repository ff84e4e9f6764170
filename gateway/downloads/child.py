"""The download child: a process with the hub's client and token, safe to kill, which ends with its parent.

Reads one request and writes frames (`wire`). Run as `python -m gateway.downloads.child`.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import BinaryIO

from gateway.downloads.fetch import Download
from gateway.downloads.reasons import CannotFetch
from gateway.downloads.wire import Answer, Fetch, Fetched, Had, NotFetched
from gateway.framing import framed, own_pipes, read_frame

EVERY_S = 0.5


def main() -> None:
    """Fetch the files of the one request; exit at once when the parent ends."""
    requests, answers = own_pipes()
    head = read_frame(requests)
    if head is None:
        return
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    fetch = Fetch.model_validate_json(head)
    download = Download(fetch)
    over = threading.Event()
    ticking = threading.Thread(target=_tick, args=(download, answers, over), daemon=True)
    ticking.start()
    try:
        if fetch.lists_only:
            download.keep_lists()
        else:
            download.run()
        last: Answer = Fetched()
    except CannotFetch as reason:
        last = reason.answer
    except Exception:
        traceback.print_exc(file=sys.stderr)  # the parent's log
        last = NotFetched(code="model_missing", message="The download failed; the gateway's log says why.")
    over.set()
    ticking.join()
    _count(download, answers)
    _send(answers, last)


def _tick(download: Download, answers: BinaryIO, over: threading.Event) -> None:
    while not over.wait(EVERY_S):
        _count(download, answers)


def _count(download: Download, answers: BinaryIO) -> None:
    if (counted := download.counted()) is not None:
        _send(answers, Had(done_bytes=counted[0], total_bytes=counted[1]))


def _send(answers: BinaryIO, answer: Answer) -> None:
    answers.write(framed(answer.model_dump_json().encode()))
    answers.flush()


def _listen(pipe: BinaryIO) -> None:
    try:
        while read_frame(pipe) is not None:
            pass
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
