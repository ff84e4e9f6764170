"""What tests of the service share: one with the fake engine behind it, and requests to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.client import Engine, EngineOptions
from gateway.images.output import OutputFolder
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest
from gateway.models.library import Library
from gateway.models.user_models import LocalModel
from gateway.residency import ResidencyOptions
from gateway.service.service import JobService, ServiceOptions
from gateway.store.sqlite import SqliteStore

ME = Origin(owner="me", protocol="native", attached=False)


@asynccontextmanager
async def service_in(
    folder: Path,
    *,
    script: dict[str, Any] | None = None,
    options: ServiceOptions | None = None,
    base_model: str = "flux2-klein-base-4b",
    residency: ResidencyOptions | None = None,
    **engine: Any,
) -> AsyncIterator[JobService]:
    weights = folder / "model" / "transformer"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "x.safetensors").touch()
    output = OutputFolder(folder / "output")
    output.prepare()
    fake = EngineOptions(backend="fake", fake_script=json.dumps(script or {}), backoff_s=(0.0,), **engine)
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(fake),
        library=Library(folder, default="toy", local={"toy": LocalModel(folder / "model", base_model)}),
        output=output,
        spool=folder / "data" / "spool",
        options=options or ServiceOptions(abandon_grace_s=0.05),
        residency=residency,
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def request(**said: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": "x", "width_px": 64, "height_px": 64, "steps": 3, **said})


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
