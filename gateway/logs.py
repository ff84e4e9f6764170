"""What the process says: one JSON object a line on stderr. Knows no request and no job, only records.

`ensure_ascii` keeps ESC, CR and LF of a prompt from reaching a terminal or forging a line (S-40, CVE-2020-7694).
Request lines are not logged at all: they would carry query strings (S-41).
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

MAX_TEXT_CHARS = 8192

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_CHATTY = ("asyncio", "httpx", "httpcore", "huggingface_hub", "PIL", "uvicorn.error", "urllib3", "filelock")


class JsonLines(logging.Formatter):
    """A record as one ASCII line: ts (UTC), level, logger, msg, what came in `extra`, and `exc` if any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _clip(_message(record)),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD and key not in line)
        if record.exc_info and record.exc_info[1] is not None:
            line["exc"] = _clip(_trace(record.exc_info[1]))
        if record.stack_info:
            line["stack"] = _clip(record.stack_info)
        return json.dumps(line, ensure_ascii=True, default=_foreign)


def setup(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every logger of the process, the server's included, through one JSON handler.

    `level` is one of DEBUG, INFO, WARNING, ERROR; libraries speak from WARNING up unless it is DEBUG.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "DEBUG" else logging.WARNING)
    logging.captureWarnings(True)


def _trace(error: BaseException) -> str:
    """Frames and types of an error and its causes. ValueError and LookupError quote what they were given, which may be
    a prompt (pydantic's do): their text stays out (S-41).
    """
    parts: list[str] = []
    at: BaseException | None = error
    while at is not None and len(parts) < 8:
        said = "" if isinstance(at, ValueError | LookupError) else f": {at}"
        parts.insert(0, "".join(traceback.format_tb(at.__traceback__)) + type(at).__qualname__ + said)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(parts)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)


def _foreign(value: object) -> str:
    return _clip(str(value))


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}... ({len(text)} characters)"
