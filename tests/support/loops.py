"""The event loops that a coroutine test may ask for."""

from __future__ import annotations

import pytest

LOOPS = (("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True}))

on_both_loops = pytest.mark.parametrize("anyio_backend", LOOPS, ids=("asyncio", "uvloop"))
"""Marks a coroutine test that runs on asyncio's loop and on uvloop's."""
