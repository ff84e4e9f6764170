"""Documents that were made to hold up whoever opens them: bounded by page and by document, and alone in their fate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from engine.protocol import Failed
from gateway.errors import InvalidRequest, Unavailable
from gateway.jobs.facts import PageRead, Queued, Requeued, Started
from gateway.jobs.job import Job, State
from gateway.jobs.origin import Origin
from gateway.jobs.plans import Ocr
from gateway.ocr.checkers import Checkers
from gateway.ocr.client import OcrClient, OcrOptions, OcrRefused
from gateway.ocr.request import OcrRequest, resolve
from tests.support.live import live
from tests.support.ocr import OBEDIENT, empty_pdf, pdf, raw_pdf, script, service_in, written

ME, OTHER = (Origin(owner=owner, protocol="native", attached=False) for owner in ("me", "other"))
CATALOGUE = b"<</Type/Catalog/Pages 2 0 R>>"
ONE_PAGE = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
FORM = b"/Type/XObject/Subtype/Form/BBox[0 0 99 99]"


def stream(entries: bytes, content: bytes) -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(content), content)


def page(resources: bytes, box: bytes = b"0 0 99 99") -> bytes:
    return b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Resources<<%s>>/Contents 4 0 R>>" % (box, resources)


def self_reference() -> bytes:
    """A form that shows itself three times."""
    form = stream(FORM + b"/Resources<</XObject<</F 5 0 R>>>>", b"/F Do /F Do /F Do")
    return raw_pdf(CATALOGUE, ONE_PAGE, page(b"/XObject<</F 5 0 R>>"), stream(b"", b"/F Do"), form)


def doubling() -> bytes:
    """Twenty-eight forms, each of which shows the next one twice."""
    forms = [
        stream(FORM + b"/Resources<</XObject<</F %d 0 R>>>>" % (number + 1), b"/F Do /F Do") for number in range(5, 33)
    ]
    last = stream(FORM, b"0 0 9 9 re f")
    return raw_pdf(CATALOGUE, ONE_PAGE, page(b"/XObject<</F 5 0 R>>"), stream(b"", b"/F Do"), *forms, last)


def tiled_by_itself() -> bytes:
    tile = b"/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 1 1]/XStep .01/YStep .01"
    pattern = stream(tile + b"/Resources<</Pattern<</P 5 0 R>>>>", b"/Pattern cs /P scn 0 0 1 1 re f")
    shows = stream(b"", b"/Pattern cs /P scn 0 0 99 99 re f")
    return raw_pdf(CATALOGUE, ONE_PAGE, page(b"/Pattern<</P 5 0 R>>"), shows, pattern)


def shaded() -> bytes:
    """Two thousand shadings of 14,400 points, each pixel by a program of a hundred steps."""
    program = stream(b"/FunctionType 4/Domain[0 1 0 1]/Range[0 1 0 1 0 1]", b"{ " + b"dup mul sqrt " * 100 + b" dup }")
    shading = b"<</ShadingType 1/ColorSpace/DeviceRGB/Domain[0 1 0 1]/Matrix[14400 0 0 14400 0 0]/Function 6 0 R>>"
    large = page(b"/Shading<</S 5 0 R>>", b"0 0 14400 14400")
    return raw_pdf(CATALOGUE, ONE_PAGE, large, stream(b"", b"/S sh " * 2000), shading, program)


def looped_tree(count: int) -> bytes:
    tree = b"<</Type/Pages/Kids[2 0 R 2 0 R 3 0 R]/Count %d>>" % count
    return raw_pdf(CATALOGUE, tree, page(b""), stream(b"", b""))


def dashed() -> bytes:
    line = b"[.0001 .0001] 0 d .001 w 0 0 m 14400 14400 l S " * 20
    return raw_pdf(CATALOGUE, ONE_PAGE, page(b"", b"0 0 14400 14400"), stream(b"", line))


def many_fonts() -> bytes:
    fonts = b"".join(b"/F%d 5 0 R" % number for number in range(3000))
    text = b"BT " + b"".join(b"/F%d 9 Tf (abc) Tj " % number for number in range(3000)) + b"ET"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    return raw_pdf(CATALOGUE, ONE_PAGE, page(b"/Font<<" + fonts + b">>"), stream(b"", text), font)


ENDLESS: tuple[Callable[[], bytes], ...] = (self_reference, doubling, tiled_by_itself, shaded)
BEARABLE: tuple[Callable[[], bytes], ...] = (lambda: looped_tree(1), lambda: looped_tree(10**9), dashed, many_fonts)


async def read(client: OcrClient, document: bytes, pages: Sequence[int] = (1,)) -> list[PageRead]:
    plan = Ocr(document="a" * 64, pages=tuple(pages))
    return [fact async for fact in client.read(plan, document, 0) if isinstance(fact, PageRead)]


async def test_ocr_page_of_endless_content_is_refused() -> None:
    """By the real child; each is smaller than a photograph's thumbnail."""
    client = OcrClient(OcrOptions(threads=1, render_s=0.5))
    try:
        for made in ENDLESS:
            assert len(made()) < 20_000
            with pytest.raises(OcrRefused, match=r"^Page 1 of the PDF takes too long to render\.$"):
                await read(client, made())
            assert client.pid is None
    finally:
        await client.close()


async def test_ocr_pdf_that_only_looks_endless_is_read() -> None:
    client = OcrClient(OcrOptions(threads=1))
    try:
        for bearable in BEARABLE:
            assert len(await read(client, bearable())) == 1
    finally:
        await client.close()


def test_ocr_hostile_document_delays_other_clients_only_by_seconds(tmp_path: Path) -> None:
    """Over HTTP: its sender is told in one sentence; whoever comes after it has its text."""
    honest = pdf(written("Invoice 42", size=(595, 842)))
    with live(tmp_path, config={"ocr": {"threads": 1, "render_s": 2}}) as gateway, ThreadPoolExecutor() as pool:

        def send(owner: str, document: bytes) -> httpx.Response:
            headers, files = {"X-Client-Id": owner}, {"image": ("a.pdf", document)}
            return httpx.post(f"{gateway.url}/v1/images/ocr", files=files, headers=headers, timeout=100)

        hostile = [pool.submit(send, "hostile", made()) for made in (self_reference, tiled_by_itself)]
        answer = send("honest", honest)
        assert (answer.status_code, "Invoice" in answer.text) == (200, True), answer.text
        for refused in hostile:
            assert refused.result().status_code == 400
            error = refused.result().json()["error"]
            assert error["message"] == "Page 1 of the PDF takes too long to render."
            assert error["param"] == "image"


async def test_pdf_page_count_is_fast_and_a_false_count_builds_no_list() -> None:
    checkers = Checkers(OcrOptions(threads=1))
    try:
        for made in (*ENDLESS, *BEARABLE):
            assert await checkers.count_pages(made(), "me") <= 10**9
        assert await checkers.count_pages(empty_pdf(201), "me") == 201
    finally:
        await checkers.close()
    with pytest.raises(InvalidRequest, match="At most 200 pages") as refused:
        resolve(OcrRequest(), "rapidocr", "a" * 64, 10**15, 200)
    assert refused.value.param == "pages"


def facts(job: Job) -> list[type]:
    return [type(event.fact) for event in job.events]


async def test_pdf_page_that_does_not_render_fails_its_job_once_and_others_continue(tmp_path: Path) -> None:
    async with service_in(tmp_path, replace(OBEDIENT, render_s=1.0)) as service:
        bad = await service.submit_ocr(OcrRequest(), script("page", "stuck"), ME)
        good = await service.submit_ocr(OcrRequest(), script("page"), OTHER)
        failed = await service.ended(bad.id)
        assert failed.failure is not None
        assert failed.failure.code == "bad_input"
        assert failed.failure.message == "Page 2 of the PDF takes too long to render."
        assert facts(failed) == [Queued, Started, PageRead, Failed]
        assert (await service.ended(good.id)).state is State.SUCCEEDED


async def test_ocr_document_time_limit_covers_all_its_tries(tmp_path: Path) -> None:
    async with service_in(tmp_path, replace(OBEDIENT, document_s=3.0, page_s=60.0)) as service:
        long = await service.submit_ocr(OcrRequest(), script("page", "sleep"), ME)
        failed = await service.ended(long.id)
        assert failed.failure is not None
        assert (failed.failure.code, len(failed.pages)) == ("engine_timeout", 1)
        assert "longer than 3 seconds together; choose fewer" in failed.failure.message
        assert Requeued not in facts(failed)
        next_one = await service.submit_ocr(OcrRequest(), script("page"), ME)
        assert (await service.ended(next_one.id)).state is State.SUCCEEDED


@pytest.mark.parametrize("how", ["count_die", "count_open_die"])
async def test_ocr_child_that_dies_once_while_counting_pages_blames_no_document(tmp_path: Path, how: str) -> None:
    client = OcrClient(OBEDIENT)
    try:
        assert await client.count_pages(script({"do": how, "once": str(tmp_path / "died")})) == 1
        assert (tmp_path / "died").exists()
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("count_die", Unavailable, "PDFs cannot be opened now"),
        ("count_open_die", InvalidRequest, "The PDF cannot be opened"),
        ("count_stuck", InvalidRequest, "The PDF takes too long to open"),
    ],
)
async def test_ocr_document_is_blamed_only_for_failures_while_it_is_open(
    how: str, error: type[Exception], sentence: str
) -> None:
    client = OcrClient(replace(OBEDIENT, check_s=0.5))
    try:
        with pytest.raises(error, match=sentence):
            await client.count_pages(script(how))
        assert await client.count_pages(script("page")) == 1
    finally:
        await client.close()


async def test_ocr_documents_of_one_owner_do_not_delay_checks_of_others() -> None:
    checkers = Checkers(replace(OBEDIENT, check_s=60.0))
    stuck = [asyncio.create_task(checkers.count_pages(script("count_stuck"), "hostile")) for _ in range(8)]
    try:
        await asyncio.sleep(0)
        for owner in ("a", "b", "a"):
            assert await checkers.count_pages(script("page", "page"), owner) == 2
        assert not any(task.done() for task in stuck)
    finally:
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await checkers.close()
