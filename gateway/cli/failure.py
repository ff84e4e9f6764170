"""Failure of a command: its message and its exit code."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; 2 is also the parser's, for a mistyped command."""

    OK = 0
    FAILED = 1
    """The gateway refused the request, or the job failed."""
    USAGE = 2
    NO_GATEWAY = 3
    CANCELLED = 4
    INTERRUPTED = 130


class Failure(Exception):
    """A command failed; the message is one sentence for its user."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        self.code = code
        super().__init__(message)
