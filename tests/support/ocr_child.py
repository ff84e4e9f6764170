"""An OCR child that does what its document says, for tests of the parent: one JSON list of actions after `%PDF`.

`page` answers one page, `wait` so, too, but later; `die` and `sleep` do so, `refuse` and `garbage` answer that; an
action with a file name is done only once, where that file does not exist yet. `creep` tells for ever that the page
goes on, `part` does so, too, until the file `until` is there, and then answers a page of which a line was not read.
`stuck` sleeps while the page is rendered. `count_die` dies before the document is open, `count_open_die` and
`count_stuck` die and sleep while its pages are counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from engine.protocol import ModelLoaded, ModelLoading
from gateway.framing import framed, read_frame
from gateway.jobs.facts import PageRead, Reading, TextLine, UnreadLine
from gateway.ocr.wire import Answer, Counted, CountPages, Opening, Refused, Rendered, request_adapter


def say(answer: Answer) -> None:
    sys.stdout.buffer.write(framed(answer.model_dump_json().encode()))
    sys.stdout.buffer.flush()


def frame() -> bytes:
    data = read_frame(sys.stdin.buffer)
    return sys.exit() if data is None else data


def page(n: int, text: str) -> PageRead:
    line = TextLine(box=((0, 0), (9, 0), (9, 9), (0, 9)), text=text, score=1.0)
    return PageRead(page=n, width_px=9, height_px=9, lines=(line,), seconds=0.0)


def act(n: int, action: dict[str, Any]) -> None:
    once = action.get("once")
    if once is not None:
        if Path(once).exists():
            action = {"do": "page"}
        else:
            Path(once).touch()
    if action["do"] == "stuck":
        time.sleep(600)
    if n >= 0:
        say(Rendered())
    match action["do"].removeprefix("count_").removeprefix("open_"):
        case "die":
            os._exit(7)
        case "wait":
            time.sleep(0.6)
        case "sleep" | "stuck":
            time.sleep(600)
        case "creep":
            while True:
                say(Reading(page=n, percent=50))
                time.sleep(0.1)
        case "part":
            say(Reading(page=n, percent=50))
            while not Path(action["until"]).exists():
                time.sleep(0.02)
            say(page(n, "part").model_copy(update={"unread": (UnreadLine(box=((0, 0),) * 4, reason="time"),)}))
            return
        case "refuse":
            say(Refused(message="No."))
            return
        case "garbage":
            sys.stdout.buffer.write(b"\0\0\0\4nope")
            sys.stdout.buffer.flush()
            return
    if n < 0:
        return
    say(page(n, f"page {n} by {os.getpid()}"))


def main() -> None:
    say_loaded = True
    while True:
        asked, document = request_adapter.validate_json(frame()), frame()
        actions = json.loads(document.removeprefix(b"%PDF"))
        if isinstance(asked, CountPages):
            counting = [a for a in actions if str(a["do"]).startswith("count")]
            if counting and counting[0]["do"] == "count_die":
                act(-1, counting[0])
            say(Opening())
            if counting and counting[0]["do"] != "count_die":
                act(-1, counting[0])
            say(Counted(pages=len(actions)))
            continue
        if say_loaded:
            say(ModelLoading(model="rapidocr"))
            say(ModelLoaded(model="rapidocr", seconds=0.0))
            say_loaded = False
        for n, action in list(enumerate(actions))[asked.first :]:
            say(Reading(page=n))
            act(n, action)


if __name__ == "__main__":
    main()
