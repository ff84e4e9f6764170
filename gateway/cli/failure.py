"""How a command ends that did not do what was asked."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; 2 is the parser's own, for a command that was mistyped."""

    OK = 0
    FAILED = 1
    """The gateway refused it, or the job failed."""
    USAGE = 2
    NO_GATEWAY = 3
    CANCELLED = 4
    INTERRUPTED = 130


class Failure(Exception):
    """One sentence for the person at the keyboard."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        self.code = code
        super().__init__(message)
