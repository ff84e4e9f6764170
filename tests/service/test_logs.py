"""What reaches stderr, and what must not."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    logs.setup("INFO", out)
    yield out
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_prompt_with_escapes_and_line_ends_is_exactly_one_ascii_line(stream: io.StringIO) -> None:
    """S-40: ESC, CR and LF never reach a terminal."""
    logging.getLogger("gateway.x").warning("got %s", "\x1b[2J\r\nFAKE é\u2028\x9b", extra={"job": "a\r\nb\x1b"})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    assert records(stream)[0]["job"] == "a\r\nb\x1b"


def test_a_log_line_has_time_level_logger_message_and_extra_fields(stream: io.StringIO) -> None:
    """S-40: one JSON object a line."""
    logging.getLogger("gateway.x").info("started", extra={"job": "7", "at": object})
    (line,) = records(stream)
    assert line["level"] == "info"
    assert line["logger"] == "gateway.x"
    assert line["msg"] == "started"
    assert line["job"] == "7"
    assert line["ts"].endswith("Z")


def test_log_records_below_the_level_are_not_written(stream: io.StringIO) -> None:
    """S-41: prompts are logged at DEBUG only, and DEBUG is off."""
    logging.getLogger("gateway.x").debug("prompt: CANARY")
    assert "CANARY" not in stream.getvalue()


def test_request_lines_of_the_server_are_not_written(stream: io.StringIO) -> None:
    """S-41: they carry query strings."""
    logging.getLogger("uvicorn.access").info('"GET /x?key=CANARY"')
    assert stream.getvalue() == ""


def test_the_servers_own_loggers_go_through_the_same_formatter(stream: io.StringIO) -> None:
    """S-40."""
    logging.getLogger("uvicorn.error").warning("odd\n")
    assert records(stream)[0]["logger"] == "uvicorn.error"


def test_a_traceback_names_types_and_places_but_not_the_value_that_was_wrong(stream: io.StringIO) -> None:
    """S-41: pydantic's errors quote their input."""

    class Sized(BaseModel):
        width: int

    said = "CAN" + "ARY"  # the frames show this line
    try:
        Sized.model_validate({"width": said})
    except ValueError as error:
        try:
            raise RuntimeError("no size") from error
        except RuntimeError:
            logging.getLogger("gateway.x").exception("failed")
    (line,) = records(stream)
    assert "CANARY" not in stream.getvalue()
    assert "ValidationError" in line["exc"]
    assert "RuntimeError: no size" in line["exc"]
    assert "test_logs.py" in line["exc"]


def test_a_log_message_with_wrong_arguments_is_still_one_line() -> None:
    """S-40."""
    record = logging.LogRecord("gateway.x", logging.WARNING, __file__, 1, "%d of %d", ("one",), None)
    assert json.loads(logs.JsonLines().format(record))["msg"] == "%d of %d"


def test_very_long_log_text_is_clipped(stream: io.StringIO) -> None:
    """S-40."""
    logging.getLogger("gateway.x").warning("x" * 100_000)
    assert len(stream.getvalue()) < 10_000
