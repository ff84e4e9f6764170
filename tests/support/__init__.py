"""Small makers the tests share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

from engine.protocol import Generate
from gateway.jobs.job import NewJob, Priority

T = TypeVar("T")

PRELOADED = "TESTS_LD_PRELOAD"
"""The environment variable with the LD_PRELOAD of the process that runs the tests."""


def run(work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
    """Run one coroutine to its end on a loop of its own."""
    return asyncio.run(asyncio.wait_for(work, timeout_s))


def a_plan(**changes: Any) -> Generate:
    plan = Generate(
        model="flux2-tiny", prompt="a red circle", width_px=64, height_px=64, steps=4, guidance=1.0, seeds=(1,)
    )
    return plan.model_copy(update=changes)


def a_job(**changes: Any) -> NewJob:
    values: dict[str, Any] = {
        "id": secrets.token_hex(16),
        "owner": "me",
        "protocol": "native",
        "plan": a_plan(),
        "priority": Priority.NORMAL,
        "fingerprint": "f",
    }
    return NewJob(**{**values, **changes})
