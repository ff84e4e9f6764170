"""What one request costs besides its image: hand-offs to threads and reads of the database, counted and named."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters import PROTOCOLS
from gateway.http import server
from gateway.jobs.job import State
from gateway.settings import load_settings
from gateway.startup import Gateway
from tests.support.live import free_port
from tests.support.service import ME, request, service_in, until

BODY = {"prompt": "x", "size": "64x64", "response_format": "b64_json"}


def name_of(function: Any) -> str:
    """The name of what a hand-off runs, within `asyncio.to_thread`'s partial."""
    while isinstance(function, functools.partial):
        inner = [one for one in function.args if callable(one)]
        function = inner[0] if inner else function.func
    return str(getattr(function, "__qualname__", function))


@pytest.fixture
def hand_offs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    run = asyncio.BaseEventLoop.run_in_executor

    def counted(loop: Any, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        found.append(name_of(function))
        return run(loop, executor, function, *args)

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", counted)
    return found


async def test_request_of_an_idle_gateway_has_seven_hand_offs(tmp_path: Path, hand_offs: list[str]) -> None:
    port = free_port()
    folders = ["--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "output")]
    settings = load_settings(["--port", str(port), "--backend", "fake", *folders], {})
    gateway = Gateway(settings, PROTOCOLS)
    serving = asyncio.create_task(
        server.serve(gateway, settings, start=gateway.start, stopping=gateway.begin_stop, stop=gateway.stop)
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(300):
                try:
                    if (await client.get("/health/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
            for _ in range(3):  # the first ones load the model and what is imported late
                (await client.post("/v1/images/generations", json=BODY)).raise_for_status()
                await asyncio.sleep(0.3)
            hand_offs.clear()
            (await client.post("/v1/images/generations", json=BODY)).raise_for_status()
            await asyncio.sleep(0.3)
            assert sorted(hand_offs) == sorted(
                [
                    "Library.on_disk",
                    "JobService._admitted",
                    "Database.write.<locals>.transaction",
                    "Filing._keep",
                    "Database.write.<locals>.transaction",
                    "EngineLane._tidy",
                    "answer_whole.<locals>.write",
                ]
            )
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_places_of_a_submitted_plan_are_for_that_plan_only(tmp_path: Path, hand_offs: list[str]) -> None:
    """A job that waits for its turn is admitted again when it runs."""
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        await service.ended((await service.submit(request(), ME)).id)
        await until(lambda: service._lane._is_idle)
        hand_offs.clear()
        jobs = [await service.submit(request(seed=n), ME) for n in (1, 2)]
        for job in jobs:
            assert (await service.ended(job.id)).state is State.SUCCEEDED
        assert hand_offs.count("EngineLane._paths") == 1


async def test_end_of_a_job_is_found_whether_it_is_live_or_not(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        job = await service.submit(request(), ME)
        assert service._bus.is_live(job.id)
        assert (await service.ended(job.id)).state is State.SUCCEEDED
        assert not service._bus.is_live(job.id)
        assert (await service.ended(job.id)).state is State.SUCCEEDED
        first, second = [await service.submit(request(), ME) for _ in range(2)]
        waiters = asyncio.gather(service.ended(second.id), service.ended(first.id))
        await asyncio.sleep(0)
        await service.cancel(second.id, ME.owner)
        assert [one.state for one in await waiters] == [State.CANCELLED, State.SUCCEEDED]
