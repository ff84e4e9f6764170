"""Readiness: whether images could be drawn now, by small concurrent checks, each with a time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.service.service import JobService

log = logging.getLogger("gateway.readiness")

ANSWER_S = 3.0

Check = Callable[[], Awaitable[str | None]]
"""A check: why no image can be drawn, as one sentence for clients; None where it passes. May raise."""


def checks_of(service: JobService) -> list[tuple[str, Check]]:
    """The checks of every gateway, each with the name of its subject."""

    async def engine() -> str | None:
        return await service.health.engine_fault()

    async def storage() -> str | None:
        fault = await service.health.storage_fault()
        return None if fault is None else fault.message

    async def store() -> None:
        await service.health.check_store()

    return [("The engine", engine), ("The job store", store), ("The storage", storage)]


class Readiness:
    """The checks of one gateway. A check that hangs is reported, and is not started again before it has ended."""

    def __init__(self, checks: Iterable[tuple[str, Check]] = (), *, answer_s: float = ANSWER_S) -> None:
        self._checks = list(checks)
        self._answer_s = answer_s
        self._under_way: dict[str, asyncio.Task[str | None]] = {}

    def add(self, subject: str, check: Check) -> None:
        """Add a check; `subject` begins the reported sentence where the check itself fails or does not answer."""
        self._checks.append((subject, check))

    async def reasons(self) -> list[str]:
        """Every reason why the gateway is not ready, once; empty where it is ready."""
        return list(await self.subjects())

    async def subjects(self) -> dict[str, str]:
        """Every reason, with the subject of the first check that gave it."""
        reasons = await asyncio.gather(*(self._reason(subject, check) for subject, check in self._checks))
        subjects: dict[str, str] = {}
        for (subject, _), reason in zip(self._checks, reasons, strict=True):
            if reason is not None:
                subjects.setdefault(reason, subject)
        return subjects

    async def _reason(self, subject: str, check: Check) -> str | None:
        task = self._under_way.get(subject)
        if task is None or task.done():
            task = self._under_way[subject] = asyncio.create_task(_run(subject, check))
        await asyncio.wait({task}, timeout=self._answer_s)
        return task.result() if task.done() else f"{subject} does not answer."


async def _run(subject: str, check: Check) -> str | None:
    try:
        return await check()
    except GatewayError as error:
        return error.message
    except Exception:
        log.exception("%s fails", subject)
        return f"{subject} fails."
