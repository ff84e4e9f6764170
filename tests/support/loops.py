"""The event loops of coroutine tests.

They log what a task that nobody awaits fails with, as under `asyncio.run`. anyio's plugin would let the test fail, but
only where the garbage collector finds the task before the test ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop
from anyio.abc import TestRunner


class AsyncioLoop(asyncio.SelectorEventLoop):
    def set_exception_handler(self, handler: Any) -> None:
        if not _is_of_plugin(handler):
            super().set_exception_handler(handler)


class UvLoop(uvloop.Loop):
    def set_exception_handler(self, handler: Any) -> None:
        if not _is_of_plugin(handler):
            super().set_exception_handler(handler)


def _is_of_plugin(handler: Any) -> bool:
    return isinstance(getattr(handler, "__self__", None), TestRunner)


ASYNCIO = ("asyncio", {"loop_factory": AsyncioLoop})
"""As anyio's fixture `anyio_backend` has it."""

on_both_loops = pytest.mark.parametrize(
    "anyio_backend", [ASYNCIO, ("asyncio", {"loop_factory": UvLoop})], ids=("asyncio", "uvloop")
)
"""Marks a coroutine test that runs on asyncio's loop and on uvloop's."""
