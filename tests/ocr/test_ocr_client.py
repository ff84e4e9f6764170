"""The parent of the OCR child: what becomes of children that die, hang, babble or have nothing to do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.protocol import ModelLoaded, ModelLoading
from gateway.errors import InvalidRequest, Unavailable
from gateway.framing import ChildDied, framed, read_frame
from gateway.jobs.facts import PageRead, Reading
from gateway.jobs.plans import Ocr
from gateway.ocr.client import OcrClient, OcrOptions, OcrRefused
from gateway.ocr.wire import Read
from tests.support.engine import alive, gone
from tests.support.ocr import CHILD, OBEDIENT, empty_pdf, encrypted_pdf, pids_by, script

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def client(options: OcrOptions = OBEDIENT) -> AsyncIterator[OcrClient]:
    """A client that leaves no child behind."""
    made = OcrClient(options)
    try:
        yield made
    finally:
        pid = made.pid
        await made.close()
        assert pid is None or not alive(pid)


async def facts_of(client: OcrClient, document: bytes, pages: int, first: int = 0) -> list[object]:
    plan = Ocr(document="a" * 64, pages=tuple(range(1, pages + 1)))
    return [fact async for fact in client.read(plan, document, first)]


async def test_ocr_pages_come_one_by_one_from_one_child_that_loads_the_model_once() -> None:
    async with client() as ocr:
        first = await facts_of(ocr, script("page", "page"), 2)
        kinds = [ModelLoading, ModelLoaded, Reading, PageRead, Reading, PageRead]
        assert [type(fact) for fact in first] == kinds
        second = await facts_of(ocr, script("page", "page", "page"), 3, first=2)
        assert [type(fact) for fact in second] == [Reading, PageRead]
        pages = [fact for fact in (*first, *second) if isinstance(fact, PageRead)]
        assert [page.page for page in pages] == [0, 1, 2]
        assert set(pids_by([page.text for page in pages])) == {ocr.pid}


@pytest.mark.parametrize("action", ["die", "garbage"])
async def test_ocr_child_that_dies_or_sends_garbage_is_replaced(action: str) -> None:
    async with client() as ocr:
        with pytest.raises(ChildDied) as death:
            await facts_of(ocr, script("page", action), 2)
        assert death.value.reason == "engine_crash"
        assert ocr.pid is None
        assert await facts_of(ocr, script("page"), 1)


async def test_ocr_child_killed_between_two_documents_loses_nothing() -> None:
    async with client() as ocr:
        await facts_of(ocr, script("page"), 1)
        assert ocr.pid is not None
        os.kill(ocr.pid, signal.SIGKILL)
        assert await gone(ocr.pid, 10)
        await asyncio.sleep(0.1)
        assert await facts_of(ocr, script("page"), 1)


async def test_ocr_child_that_stays_silent_is_killed() -> None:
    async with client(replace(OBEDIENT, page_s=3.0)) as ocr:
        with pytest.raises(ChildDied) as death:
            await facts_of(ocr, script("sleep"), 1)
        assert death.value.reason == "engine_timeout"
        assert ocr.pid is None


async def test_ocr_child_that_only_sends_keepalives_is_killed_in_the_end() -> None:
    async with client(replace(OBEDIENT, page_s=3.0)) as ocr:
        with pytest.raises(ChildDied) as death:
            await facts_of(ocr, script("creep"), 1)
        assert death.value.reason == "engine_timeout"
        assert ocr.pid is None


async def test_ocr_read_closed_early_kills_the_child() -> None:
    async with client() as ocr:
        plan = Ocr(document="a" * 64, pages=(1, 2))
        async with aclosing(ocr.read(plan, script("page", "sleep"), 0)) as facts:
            async for fact in facts:
                pid = ocr.pid
                if isinstance(fact, PageRead):
                    break
        assert pid is not None
        assert not alive(pid)
        assert await facts_of(ocr, script("page"), 1)


async def test_ocr_refusal_is_reported_and_keeps_the_child_running() -> None:
    async with client() as ocr:
        with pytest.raises(OcrRefused) as refusal:
            await facts_of(ocr, script("page", "refuse"), 2)
        assert refusal.value.message == "No."
        assert ocr.pid is not None


async def test_ocr_child_that_is_idle_is_stopped() -> None:
    async with client(replace(OBEDIENT, idle_s=0.2)) as ocr:
        await facts_of(ocr, script("page"), 1)
        pid = ocr.pid
        assert pid is not None
        assert await gone(pid, 10)
        assert await facts_of(ocr, script("page"), 1)


async def test_concurrent_requests_wait_for_each_other() -> None:
    async with client() as ocr:
        found = await asyncio.gather(*(facts_of(ocr, script("page"), 1) for _ in range(5)))
        assert {type(facts[-1]) for facts in found} == {PageRead}


async def test_ocr_child_that_cannot_start_is_a_crash_for_a_job_and_503_for_a_check() -> None:
    async with client(replace(OBEDIENT, command=("/no/such/program",))) as ocr:
        with pytest.raises(ChildDied):
            await facts_of(ocr, script("page"), 1)
        with pytest.raises(Unavailable):
            await ocr.count_pages(script("page"))


# ---- the real child --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pdf", "word"),
    [
        (b"%PDF", "damaged"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 9, "damaged"),
        (encrypted_pdf(), "encrypted"),
    ],
    ids=["empty", "noise", "encrypted"],
)
async def test_a_pdf_that_cannot_be_opened_is_refused_in_one_sentence(pdf: bytes, word: str) -> None:
    async with client(OcrOptions(threads=1)) as ocr:
        with pytest.raises(InvalidRequest, match=word) as refused:
            await ocr.count_pages(pdf)
        assert refused.value.param == "image"


async def test_pdf_refusal_reason_is_not_taken_over_from_the_previous_pdf() -> None:
    async with client(OcrOptions(threads=1)) as ocr:
        for pdf, word in ((encrypted_pdf(), "encrypted"), (empty_pdf(0), "damaged")):
            with pytest.raises(InvalidRequest, match=word):
                await ocr.count_pages(pdf)
        assert await ocr.count_pages(empty_pdf(3)) == 3


@pytest.mark.parametrize("command", [CHILD, OcrOptions().command], ids=["toy", "real"])
def test_ocr_child_exits_with_its_parent(command: tuple[str, ...]) -> None:
    child = subprocess.Popen([*command, "--threads", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    assert child.wait(30) == 0
    child.stdout.close()


def test_ocr_real_child_exits_with_its_parent_in_the_middle_of_a_page() -> None:
    """The models load for a second and more; end of input comes meanwhile."""
    command = [sys.executable, "-m", "gateway.ocr.child", "--threads", "1"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdin is not None
    assert child.stdout is not None
    asked = Read(pages=(), dpi=200, first=0)
    child.stdin.write(framed(asked.model_dump_json().encode()) + framed(b"no picture"))
    child.stdin.flush()
    assert b"model_loading" in (read_frame(child.stdout) or b"")
    child.stdin.close()
    assert child.wait(30) == 0
    child.stdout.close()
