"""A store with a long history and a long queue, for `benchmarks.scale`: real rows, written at once.

A few hundred jobs are written by the store's own code; the others are copies of them under other ids and dates, with
checksums of their own.
"""

from __future__ import annotations

import random
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.protocol import Cancelled, Failed, Succeeded
from gateway.jobs.facts import ImageDone, Started
from gateway.jobs.job import Job, Priority, StateFacts
from gateway.jobs.resolve import Adjustment
from gateway.private_files import write_private
from gateway.store import checksum, rows
from gateway.store.schema import SqliteConnection
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan

ME = "client:me"
TEMPLATES = 500
DAYS = 30.0
WORDS = (
    "a the of and with red green blue golden old small wide quiet northern harbour street lighthouse fox castle river"
    " morning fog portrait landscape oil painting watercolour photograph studio light soft shadows detailed wooden boat"
    " under distant mountains autumn leaves reflected glass city rain night market lanterns snow field stone bridge"
)
RARE = "zeppelin"
"""A word that one prompt in a thousand has."""
PROTOCOLS = ("native", "native", "sdapi", "openai", "mflux-server")
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738"
    "550000000049454e44ae426082"
)


@dataclass(frozen=True, slots=True)
class Template:
    """A job's row and the rows of its events."""

    row: dict[str, Any]
    events: tuple[dict[str, Any], ...]


async def with_history(folder: Path, jobs: int, *, files: Path | None = None) -> None:
    """Create a store with so many ended jobs of one client; `files` is the folder for their images."""
    store = SqliteStore(folder)
    await store.open()
    first = time.time() - DAYS * 86400.0

    def work(db: SqliteConnection) -> None:
        templates = _templates(db, TEMPLATES, _ended)
        dates = (first + n * DAYS * 86400.0 / jobs for n in range(jobs))
        _copy(db, templates, jobs, dates)

    await store._database.write(work)
    await store.close()
    if files is not None:
        files.mkdir(parents=True, exist_ok=True, mode=0o700)
        with sqlite3.connect(folder / "jobs.sqlite3") as db:
            for (fact,) in db.execute("SELECT fact FROM events WHERE fact LIKE '%image_done%'"):
                write_private(files / ImageDone.model_validate_json(fact).file, PNG)


async def with_queue(
    source: Path, folder: Path, waiting: int, owners: int, *, every_s: float = 0.01, classes: bool = False
) -> None:
    """Copy a store and add so many waiting jobs, one submitted every `every_s` seconds until now."""
    shutil.copytree(source, folder)
    store = SqliteStore(folder)
    await store.open()
    await store.pause("engine", False)
    now = store.steady()

    def owner(n: int) -> str:
        return ME if owners == 1 else f"client:{n % owners}"

    def work(db: SqliteConnection) -> None:
        def live(db: SqliteConnection, n: int) -> Job:
            priority = (Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.NORMAL)[n % 4 if classes else 0]
            new = a_job(owner=owner(n), plan=a_plan(prompt=prompt(n)), priority=priority)
            return rows.insert(db, new, now, now)

        templates = _templates(db, min(waiting, max(8, 4 * owners)), live)
        _copy(db, templates, waiting, (now - (waiting - n) * every_s for n in range(waiting)))

    await store._database.write(work)
    await store.close()


def prompt(n: int) -> str:
    """A prompt of twenty words, the same for the same number."""
    words = random.Random(n).choices(WORDS.split(), k=20)
    return " ".join([*words, f"number {n}"])


def _ended(db: SqliteConnection, n: int) -> Job:
    plan = a_plan(
        prompt=prompt(n),
        seeds=tuple(range(n, n + (1, 1, 1, 2)[n % 4])),
        width_px=512,
        height_px=512,
        model=("flux2-tiny", "flux2-tiny", "z-image-turbo")[n % 3],
    )
    late = (Adjustment(param="steps", asked="50", used="4", reason="the model is distilled"),) if n % 5 == 0 else ()
    new = a_job(owner=ME, protocol=PROTOCOLS[n % len(PROTOCOLS)], plan=plan, adjustments=late)
    job = rows.insert(db, new, 1.0, 1.0)
    for fact in _story(job, n):
        job = rows.append(db, job, fact, 1.0, 1.0)
    return job


def _story(job: Job, n: int) -> Iterator[StateFacts]:
    if n % 25 == 24:
        yield Cancelled(reason="user")
        return
    yield Started(attempt=1)
    if n % 50 == 48:
        yield Failed(code="engine_crash", message="The engine stopped twice while drawing this picture.")
        return
    for image, seed in enumerate(job.plan.seeds):  # type: ignore[union-attr]
        file = f"{job.id}.1.{image}.png"
        size: dict[str, Any] = {"width_px": 512, "height_px": 512, "drawn_px": (512, 512), "seconds": 1.5}
        yield ImageDone(image=image, seed=seed, file=file, length_bytes=len(PNG), sha256="0" * 64, **size)
    yield Succeeded()


def _templates(db: SqliteConnection, count: int, make: Callable[[SqliteConnection, int], Job]) -> list[Template]:
    """Jobs as the store's own code writes them; their rows are read and removed."""
    templates = []
    for n in range(count):
        job = make(db, n)
        row = dict(db.execute("SELECT * FROM jobs WHERE id = ?", (job.id,)).fetchone())
        events = db.execute("SELECT * FROM events WHERE job_id = ? ORDER BY seq", (job.id,)).fetchall()
        templates.append(Template(row, tuple(dict(event) for event in events)))
        db.execute("DELETE FROM jobs WHERE id = ?", (job.id,))
    return templates


def _copy(db: SqliteConnection, templates: list[Template], count: int, dates: Iterator[float]) -> None:
    number = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()[0]
    event_number = db.last_number("events")
    columns = list(templates[0].row)
    all_jobs, all_events = [], []
    for n in range(count):
        template, at = templates[n % len(templates)], next(dates)
        job_id, former = secrets.token_hex(16), template.row["id"]
        row = {**template.row, "id": job_id, "number": number + n + 1, "created_at": at}
        for name in ("started_at", "finished_at", "started_steady", "finished_steady"):
            row[name] = None if row[name] is None else at + 1.0
        row["standing_since"], row["standing_number"] = at, row["number"]
        plan = row["plan"]
        if n % 1000 == 500:
            plan = plan.replace('"prompt":"', f'"prompt":"{RARE} ', 1)
        row["plan"] = plan
        chain = []
        for event in template.events:
            event_number += 1
            when = at if event["seq"] == 1 else at + 1.0
            fact = event["fact"].replace(former, job_id)
            chain.append({**event, "number": event_number, "job_id": job_id, "at": when, "steady": when, "fact": fact})
        row["checksum"] = checksum.of_job(row, None, chain)
        all_jobs.append(tuple(row.values()))
        all_events += [tuple(event.values()) for event in chain]
    db.executemany(f"INSERT INTO jobs ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})", all_jobs)
    names = list(templates[0].events[0])
    db.executemany(f"INSERT INTO events ({','.join(names)}) VALUES ({','.join('?' * len(names))})", all_events)
