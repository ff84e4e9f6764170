"""Searches for words find the same jobs by the index of prompts, without it, and while it is behind."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.protocol import Upscale
from gateway.jobs.job import Job
from gateway.jobs.plans import Ocr
from gateway.store import guarded, lists, prompt_index, sql_store
from gateway.store.base import JobStore
from gateway.store.prompt_index import NAME, IndexUnusable, PromptIndex
from gateway.store.sqlite import SqliteStore
from tests.support import a_plan
from tests.support.store import opened, submit

PROMPTS = (
    "A red Lighthouse, foggy morning",
    "a blue fox",
    'she said "red", and left 100% of it_',
    "ΑΣ and ΣΑΣ, Straße, İstanbul",
    "灯台と赤い船",
    "red",
    "",
    "light house",
    "a fox\nand a lighthouse\twith a red roof",
)
SEARCHES = (
    *(
        "red",
        "RED",
        "light",
        "house",
        "lighthouse fox",
        '"red"',
        "100%",
        "it_",
        "ΣΑΣ",
        "ας",
        "Straße",
        "灯台と",
        "灯台",
    ),
    *("İstanbul", "x", "zzz", "red zzz", "ed", "and a", "% of", "'", "AND", "OR", "*", "NEAR(a", "te:red"),
)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_store, "INDEXED_AT_ONCE", 4)
    monkeypatch.setattr(guarded, "PAUSE_S", 0.0)
    monkeypatch.setattr(lists, "NAMED_AT_ONCE", 2)


async def found(store: JobStore, text: str, owner: str = "me", **filters: object) -> list[int]:
    jobs = await store.list_jobs(owner=owner, words=text.split(), **filters)  # type: ignore[arg-type]
    return [job.number for job in jobs]


def expected(jobs: list[Job], text: str) -> list[int]:
    def lower(text: str) -> str:
        return text.encode().lower().decode()

    def prompt(job: Job) -> str:
        return getattr(job.plan, "prompt", None) or ""

    matching = [job for job in jobs if all(lower(word) in lower(prompt(job)) for word in text.split())]
    return [job.number for job in reversed(matching)]


async def filled(store: JobStore) -> list[Job]:
    jobs = []
    for prompt in PROMPTS:
        jobs.append(await submit(store, plan=a_plan(prompt=prompt)))
        await submit(store, owner="you", plan=a_plan(prompt=prompt))
    await submit(store, plan=Ocr(document="a" * 64))
    return jobs


async def test_search_by_the_index_finds_what_a_reading_of_all_prompts_finds(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        jobs = await filled(store)
        unindexed = {text: await found(store, text) for text in SEARCHES}
        assert unindexed == {text: expected(jobs, text) for text in SEARCHES}
        await store.index_prompts()
        assert {text: await found(store, text) for text in SEARCHES} == unindexed
        jobs.append(await submit(store, plan=a_plan(prompt="a new red lighthouse")))
        for text in ("red", "lighthouse fox", "new lighthouse"):
            assert await found(store, text) == expected(jobs, text)
        assert await found(store, "red", "nobody") == []
        first, *rest = await found(store, "red")
        assert await found(store, "red", limit=1) == [first]
        assert await found(store, "red", before=first) == rest
        assert await found(store, "red", among=frozenset({jobs[0].id})) == [jobs[0].number]
        assert await found(store, "red", model="another") == []


async def test_search_reads_the_jobs_that_the_index_names_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        jobs = await filled(store)
        await store.index_prompts()
        whole: list[str] = []
        store._database._read_db.create_function("instr", 2, lambda text, word: whole.append(text) or word in text)
        assert await found(store, "lighthouse roof") == [jobs[-1].number]
        assert len(whole) == 2, "two words of the one prompt that has both"
        assert await found(store, "nothing-has-this") == []
        assert len(whole) == 2


async def test_search_of_the_prompt_of_an_upscaled_image(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        size = {"width_px": 64, "height_px": 64, "short_px": 64}
        plan = Upscale(model="seedvr2", image="a" * 64, seed=1, drawn='{"prompt": "a harbour"}', **size)
        job = await submit(store, plan=plan)
        await store.index_prompts()
        assert await found(store, "harbour") == [job.number]


@pytest.mark.parametrize("damage", ["not a database", "empty", "cut", "another version", "gone", "a page"])
async def test_an_index_that_cannot_be_used_is_made_anew(tmp_path: Path, damage: str) -> None:
    file = tmp_path / NAME
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = await filled(store)
        await store.index_prompts()
        with closing(sqlite3.connect(file)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        data = file.read_bytes()
        match damage:
            case "not a database":
                file.write_bytes(b"\xff" * 8192)
            case "empty":
                file.write_bytes(b"")
            case "cut":
                file.write_bytes(data[: len(data) // 2])
            case "another version":
                with closing(sqlite3.connect(file)) as db:
                    db.execute("PRAGMA user_version=99")
            case "gone":
                file.unlink()
            case "a page":
                file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
        for _ in range(2):
            assert await found(store, "red") == expected(jobs, "red")
            await store.index_prompts()
        assert PromptIndex(tmp_path).last().count == len(2 * jobs) + 1
        assert await store.damaged() == []
        assert await store.get(jobs[0].id) == jobs[0]


async def test_an_index_of_another_database_is_made_anew(tmp_path: Path) -> None:
    """As after a backup was put back: the same numbers are given to other jobs."""
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await submit(store, plan=a_plan(prompt="first"))
        assert await store.back_up(0.0)
        for prompt in ("second", "third"):
            await submit(store, plan=a_plan(prompt=prompt))
        await store.index_prompts()
    (copy,) = (tmp_path / "backups").iterdir()
    for part in tmp_path.glob("jobs.sqlite3*"):
        part.unlink()
    shutil.copyfile(copy, tmp_path / "jobs.sqlite3")
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        other = [await submit(store, plan=a_plan(prompt=f"another {n}")) for n in range(2)]
        for _ in range(2):
            assert await found(store, "another") == [job.number for job in reversed(other)]
            assert await found(store, "third") == []
            await store.index_prompts()


async def test_an_index_of_many_deleted_jobs_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "GONE_MOST", 0)
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = [await submit(store, plan=a_plan(prompt=f"red {n}")) for n in range(10)]
        await store.index_prompts()
        for job in jobs[:8]:
            await store.cancel(job.id, "user")
        await store.delete([job.id for job in jobs[:8]])
        assert await found(store, "red") == [10, 9]
        await store.index_prompts()
        assert PromptIndex(tmp_path).last().count == 2
        assert await found(store, "red") == [10, 9]


async def test_search_works_where_sqlite_has_no_index_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_index, "TABLES", prompt_index.TABLES.replace("fts5", "fts99"))
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = await filled(store)
        for _ in range(2):
            await store.index_prompts()
            assert await found(store, "red") == expected(jobs, "red")
    with pytest.raises(IndexUnusable):
        PromptIndex(tmp_path).last()


def test_prompt_index_is_private(tmp_path: Path) -> None:
    PromptIndex(tmp_path).last()
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
