"""OCR as a job: what runs beside what, what survives whose death, what is told. The child does as its document says."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.protocol import Cancelled, Succeeded
from gateway.errors import InvalidRequest, JobNotFound, NotInstalled
from gateway.events.bus import ProgressEvent
from gateway.jobs.facts import CancelRequested, PageRead, Queued, Requeued, Started
from gateway.jobs.job import Job, JobEvent, State
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest
from gateway.ocr import packages
from gateway.ocr.request import OcrRequest
from gateway.service.service import JobService
from tests.support.engine import alive
from tests.support.ocr import OBEDIENT, pids_by, script, service_in

ME = Origin(owner="me", protocol="native", attached=False)
ALL = OcrRequest()


async def read(service: JobService, *actions: str | dict[str, object], request: OcrRequest = ALL) -> Job:
    return await service.submit_ocr(request, script(*actions), ME)


async def once(service: JobService, job: Job, condition: Callable[[Job], bool]) -> Job:
    """The job once it is so; nobody watches it meanwhile."""
    async with asyncio.timeout(20):
        while not condition(now := await service.get(job.id)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return now


async def page_read(service: JobService, job: Job) -> Job:
    """The job once its first page is on disk."""
    return await once(service, job, lambda now: bool(now.pages))


def kinds(job: Job) -> list[type]:
    return [type(event.fact) for event in job.events]


def readers(job: Job) -> list[int]:
    return pids_by([page.text for page in job.pages])


async def test_ocr_document_is_read_page_by_page_and_stays_in_the_job_list(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "page", "page", request=OcrRequest(pages=(2, 1)))
        events = [event async for event in service.watch(job.id)]
        states = [event for event in events if isinstance(event, JobEvent)]
        assert [type(event.fact) for event in states] == [Queued, Started, PageRead, PageRead, Succeeded]
        phases = [event.progress.phase for event in events if isinstance(event, ProgressEvent)]
        assert "reading" in phases
    async with service_in(tmp_path) as service:
        again = await service.get(job.id, "me")
        assert again.text.count("\n\n") == 1
        assert again.state is State.SUCCEEDED
        with pytest.raises(JobNotFound):
            await service.get(job.id, "you")


async def test_ocr_job_records_unread_lines_and_page_progress(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, {"do": "part", "until": str(tmp_path / "seen")}, "page")
        parts = set()
        async for event in service.watch(job.id):
            if isinstance(event, ProgressEvent):
                parts.add(event.progress.fraction)
                if 0.25 in parts:
                    (tmp_path / "seen").touch()
        assert 0.25 in parts
    async with service_in(tmp_path) as service:
        first, second = (await service.get(job.id)).pages
        assert [line.reason for line in first.unread] == ["time"]
        assert second.unread == ()


async def test_ocr_does_not_wait_for_drawing(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        drawn = await service.submit(GenerationRequest(prompt="x", width_px=64, height_px=64, steps=100), ME)
        ended = await service.ended((await read(service, "page")).id)
        assert ended.state is State.SUCCEEDED
        assert (await service.get(drawn.id)).state in (State.QUEUED, State.RUNNING)
        await service.cancel(drawn.id, ME.owner)


async def test_ocr_child_that_dies_once_is_replaced_and_the_job_continues_at_its_unread_page(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "page", {"do": "die", "once": str(tmp_path / "died")})
        ended = await service.ended(job.id)
        assert kinds(ended) == [Queued, Started, PageRead, Requeued, Started, PageRead, Succeeded]
        assert (ended.attempt, ended.crashes) == (2, 1)
        first, second = readers(ended)
        assert first != second


async def test_ocr_child_killed_from_outside_does_not_fail_the_job(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "page", {"do": "sleep", "once": str(tmp_path / "slept")})
        (pid,) = readers(await page_read(service, job))
        os.kill(pid, signal.SIGKILL)
        assert (await service.ended(job.id)).state is State.SUCCEEDED


@pytest.mark.parametrize(("action", "code"), [("die", "engine_crash"), ("sleep", "engine_timeout")])
async def test_ocr_document_that_kills_two_children_fails_and_the_next_is_read(
    tmp_path: Path, action: str, code: str
) -> None:
    options = replace(OBEDIENT, page_s=3.0) if action == "sleep" else OBEDIENT
    async with service_in(tmp_path, options) as service:
        ended = await service.ended((await read(service, action)).id)
        assert ended.failure is not None
        assert (ended.failure.code, ended.attempt) == (code, 2)
        assert (await service.ended((await read(service, "page")).id)).state is State.SUCCEEDED


async def test_ocr_refused_document_is_a_bad_input_error(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        ended = await service.ended((await read(service, "page", "refuse")).id)
        assert ended.failure is not None
        assert (ended.failure.code, ended.failure.message) == ("bad_input", "No.")
        assert len(ended.pages) == 1


async def test_ocr_running_job_is_cancelled_at_once_and_keeps_its_pages(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "page", "sleep")
        (pid,) = readers(await page_read(service, job))
        ended = await service.cancel(job.id, ME.owner)
        assert kinds(ended)[-2:] == [CancelRequested, Cancelled]
        assert (ended.state, len(ended.pages)) == (State.CANCELLED, 1)
        assert not alive(pid)
        assert (await service.ended((await read(service, "page")).id)).state is State.SUCCEEDED


async def test_ocr_queued_job_is_cancelled_and_never_read(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        first = await read(service, "page", "sleep")
        second = await read(service, "page", request=OcrRequest(dpi=100))
        assert await service.queue.position(second.id) == 1
        assert kinds(await service.cancel(second.id, ME.owner)) == [Queued, Cancelled]
        await page_read(service, first)
        assert (await service.cancel(first.id, ME.owner)).state is State.CANCELLED
        assert not (await service.get(second.id)).pages


async def test_client_disconnect_ends_its_job(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "sleep")
        service.abandon(job)
        ended = await once(service, job, lambda now: now.finished_at is not None)
        assert ended.events[-1].fact == Cancelled(reason="client_gone")


async def test_ocr_job_interrupted_by_shutdown_continues_after_the_next_start(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "page", {"do": "sleep", "once": str(tmp_path / "slept")})
        (pid,) = readers(await page_read(service, job))
    assert not alive(pid)
    async with service_in(tmp_path) as service:
        ended = await service.ended(job.id)
        assert (ended.state, ended.crashes, len(ended.pages)) == (State.SUCCEEDED, 0, 2)


async def test_pdf_with_too_many_pages_is_refused_before_a_job_is_made(tmp_path: Path) -> None:
    async with service_in(tmp_path, replace(OBEDIENT, max_pages=2)) as service:
        with pytest.raises(InvalidRequest) as refused:
            await read(service, "page", "page", "page")
        assert refused.value.param == "pages"
        assert await service.list_jobs(owner="me") == []
        kept = await read(service, "page", "page", "page", request=OcrRequest(pages=(3,)))
        assert len((await service.ended(kept.id)).pages) == 1


async def test_a_pdf_is_counted_while_another_one_is_read(tmp_path: Path) -> None:
    """The reader is busy for minutes; a broken PDF must be refused now."""
    async with service_in(tmp_path) as service:
        long = await read(service, "page", "sleep")
        await page_read(service, long)
        with pytest.raises(InvalidRequest):
            await read(service, "page", request=OcrRequest(pages=(2,)))
        await service.cancel(long.id, ME.owner)


async def test_ocr_without_its_packages_accepts_no_job_and_fails_waiting_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service_in(tmp_path) as service:
        job = await read(service, "page", {"do": "sleep", "once": str(tmp_path / "slept")})
        await page_read(service, job)
    monkeypatch.setattr(packages, "READER", ("no_such_package",))
    async with service_in(tmp_path) as service:
        failure = (await service.ended(job.id)).failure
        assert failure is not None
        assert failure.code == "model_missing"
        with pytest.raises(NotInstalled):
            await read(service, "page")
