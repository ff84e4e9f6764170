"""Logs of the process: one JSON object a line on stderr. Knows no request and no job, only records.

No record waits for a reader of stderr: a thread writes them (`gateway.text_output`); those without room are counted.
`ensure_ascii` keeps ESC, CR and LF of a prompt from reaching a terminal or forging a line (S-40, CVE-2020-7694).
Request lines are not logged at all, since they would contain query strings (S-41).
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

from gateway.text_output import QueuedOutput, QueuedText

MAX_TEXT_CHARS = 8192
EXIT_S = 0.5
"""Seconds that the last records have to be read when the process ends."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_CHATTY = ("asyncio", "httpx", "httpcore", "huggingface_hub", "PIL", "uvicorn.error", "urllib3", "filelock")


class JsonLines(logging.Formatter):
    """A record as one ASCII line: ts (UTC), level, logger, msg, the fields of `extra`, and `exc` if any."""

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


class QueuedLines(logging.Handler):
    """Handler that passes each record to `output` as a line."""

    def __init__(self, output: QueuedOutput) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._output.put(self.format(record).encode() + b"\n")
        except Exception:
            self.handleError(record)


_outputs: dict[str, QueuedOutput] = {}
"""Outputs of stdout and stderr, once they are queued."""


def setup(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every logger of the process, including the server's, through one JSON handler.

    `level` is one of DEBUG, INFO, WARNING, ERROR; libraries log from WARNING on unless it is DEBUG. Without a `stream`
    the records go to stderr, and from then on printed text waits for no reader either.
    """
    handler = _queued() if stream is None else logging.StreamHandler(stream)
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


def dropped() -> int:
    """Records and printed lines that were dropped for lack of room since the start."""
    return sum(output.dropped_in_all for output in _outputs.values())


def flush(within_s: float) -> bool:
    """Wait until everything logged is written; whether it was, in time."""
    end = time.monotonic() + within_s
    for name in _outputs:
        getattr(sys, name).flush()
    written = [output.flush(max(0.0, end - time.monotonic())) for output in _outputs.values()]
    return all(written)


def _queued() -> logging.Handler:
    """Queue stdout and stderr, once; returns a handler that writes records to stderr's queue."""
    if not _outputs:
        for name in ("stdout", "stderr"):
            text: TextIO | None = getattr(sys, name)
            if text is not None:  # None: it was closed at the start, and its number may be a file's by now
                output = _outputs[name] = QueuedOutput(text.fileno(), _dropped)
                setattr(sys, name, QueuedText(output, text.fileno()))
        atexit.register(_leave)
    return QueuedLines(_outputs["stderr"]) if "stderr" in _outputs else logging.NullHandler()


def _leave() -> None:
    """At exit: write later output directly, unless nothing reads it."""
    if flush(EXIT_S):
        for name in _outputs:
            setattr(sys, name, getattr(sys, f"__{name}__"))
        for handler in logging.getLogger().handlers[:]:
            if isinstance(handler, QueuedLines):
                direct = logging.StreamHandler()
                direct.setFormatter(handler.formatter)
                logging.getLogger().handlers[:] = [direct]


def _dropped(count: int) -> bytes:
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "%d log records were dropped", (count,), None)
    return JsonLines().format(record).encode() + b"\n"


def _trace(error: BaseException) -> str:
    """Frames and types of an error and its causes. The texts of ValueError and LookupError are omitted, since they may
    quote a prompt (pydantic's do) (S-41).
    """
    parts: list[str] = []
    at: BaseException | None = error
    while at is not None and len(parts) < 8:
        text = "" if isinstance(at, ValueError | LookupError) else f": {at}"
        parts.insert(0, "".join(traceback.format_tb(at.__traceback__)) + type(at).__qualname__ + text)
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
