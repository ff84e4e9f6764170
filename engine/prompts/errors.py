"""Errors of this package."""

from __future__ import annotations


class PromptError(ValueError):
    """The prompt cannot be read. `message` is a sentence fit for a client."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)
