"""Random damage to a job database, and what must hold of a store that is opened upon it (R-06)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.protocol import Failed, Succeeded
from gateway.errors import JobDamaged, JobNotFound
from gateway.jobs.job import Job, State
from gateway.store.base import Bounds, InputBounds, StoreCorrupt
from gateway.store.checksum import COLUMNS
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.store import WORKER, claim, image, submit

JOBS = 24
DAY_S = 86400.0
OPENS_S = 30.0
TEXTS = (
    *("{", "", "x", '{"kind":"hologram"}', "\x00", "running", "queued", "cancelled"),
    *(b"\xff\xfe", 7, -1, 2**62, 1e300),
)
JOB_COLUMNS = (*COLUMNS, "checksum")
EVENT_COLUMNS = ["job_id", "seq", "at", "fact", "steady", "number"]


@dataclass(frozen=True, slots=True)
class Sound:
    """A data folder as a gateway left it, by a stop or by a kill, and the jobs a start finds there."""

    stopped: Path
    killed: Path
    jobs: dict[str, Job]


async def make(folder: Path) -> Sound:
    """Jobs that wait, run and have ended in every way, and a copy of the first half of them."""
    stopped, killed = folder / "stopped", folder / "killed"
    store = SqliteStore(stopped)
    await store.open()
    for n in range(JOBS):
        if n == JOBS // 2:
            await store.back_up(0.0)
        named = await store.put_blob(b"input %d" % n)
        await submit(store, owner="ab"[n % 2], plan=a_plan(prompt=f"picture {n} " * 20, init_image=named))
        if n % 3:
            lease = await claim(store)
            await store.record(lease, image(0))
            ends = (Succeeded(), Failed(code="internal_error", message="x"), None)
            if (end := ends[n % 3]) is not None:
                await store.commit(lease, end)
    shutil.copytree(stopped, killed)
    await store.close()
    again = folder / "again"
    shutil.copytree(stopped, again)
    store = SqliteStore(again)
    await store.open()
    jobs = {job.id: job for job in await store.list_jobs(limit=1000)}
    await store.close()
    return Sound(stopped, killed, jobs)


# ---- what is done to it: each returns how many records it may have touched, None where that is unknown -----------


def flip(file: Path, rng: random.Random) -> int | None:
    """Bytes anywhere."""
    data, count = bytearray(file.read_bytes()), rng.choice((1, 1, 1, 2, 8))
    for _ in range(count):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return None


def flip_text(file: Path, rng: random.Random) -> int | None:
    """One byte inside a record."""
    data = bytearray(file.read_bytes())
    word = rng.choice((b"picture ", b'"kind"', b"flux2-tiny", b'"seed"'))
    places = [at for at in range(len(data)) if data.startswith(word, at)]
    data[rng.choice(places) + rng.randrange(len(word))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return 1


def zero_page(file: Path, rng: random.Random) -> int | None:
    data = bytearray(file.read_bytes())
    at = 4096 * rng.randrange(len(data) // 4096)
    data[at : at + 4096] = bytes(4096)
    file.write_bytes(data)
    return None


def cut(file: Path, rng: random.Random) -> int | None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.choice((0, 1, 100, 4096, rng.randrange(len(data))))])
    return None


def cut_journal(file: Path, rng: random.Random) -> int | None:
    """What the lost end of the journal held is as if it had never been."""
    journal = file.with_name(file.name + "-wal")
    data = bytearray(journal.read_bytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 0xFF
    else:
        del data[rng.randrange(len(data)) :]
    journal.write_bytes(data)
    return None


def alter(file: Path, rng: random.Random) -> int | None:
    """Rows, by SQL."""
    count = rng.choice((1, 1, 3))
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        for place in rng.sample(range(JOBS - count), count):
            job = "(SELECT id FROM jobs ORDER BY number LIMIT 1 OFFSET ?)"
            with contextlib.suppress(sqlite3.IntegrityError):
                match rng.randrange(7):
                    case 0:
                        db.execute(f"DELETE FROM events WHERE job_id = {job} AND seq = ?", (place, rng.randrange(1, 4)))
                    case 1:
                        db.execute(f"DELETE FROM events WHERE job_id = {job}", (place,))
                    case 2:
                        db.execute("PRAGMA foreign_keys=0")
                        db.execute(f"DELETE FROM jobs WHERE id = {job}", (place,))
                    case 3 | 4:
                        column = rng.choice(JOB_COLUMNS)
                        db.execute(f"UPDATE jobs SET {column} = ? WHERE id = {job}", (rng.choice(TEXTS), place))
                    case _:
                        column, seq = rng.choice(EVENT_COLUMNS), rng.randrange(1, 4)
                        where = f"job_id = {job} AND seq = ?"
                        db.execute(f"UPDATE events SET {column} = ? WHERE {where}", (rng.choice(TEXTS), place, seq))
    return count


def alter_open(file: Path, rng: random.Random) -> int | None:
    """Rows, by SQL, while the store is open."""
    return alter(file, rng)


def alter_kept(file: Path, rng: random.Random) -> int | None:
    """What is kept beside the jobs, who owns inputs, counters and the version."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        match rng.randrange(5):
            case 4:
                column = rng.choice(("sha256", "owner", "payer", "bytes", "at"))
                where = f"sha256 = (SELECT sha256 FROM blob_owners LIMIT 1 OFFSET {rng.randrange(JOBS)})"
                db.execute(f"UPDATE blob_owners SET {column} = ? WHERE {where}", (rng.choice((*TEXTS, 2**39)),))
            case 0:
                db.execute(f"PRAGMA user_version={rng.choice((0, 1, 3, 99))}")
            case 1:
                db.execute("UPDATE sqlite_sequence SET seq = ?", (rng.choice((0, -3, 2**63 - 1, "x", None)),))
            case _:
                names = [row[0] for row in db.execute("SELECT name FROM kept ORDER BY name")]
                names += ["turns engine", "forgotten events", "calendar"]
                value = rng.choice(("{", "", "[]", "[[1]]", "null", "nan", "1e999"))
                new = "INSERT INTO kept (name, value) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = ?"
                db.execute(new, (rng.choice(names), value, value))
    return 0


DAMAGES: tuple[Callable[[Path, random.Random], int | None], ...] = (
    flip,
    flip_text,
    zero_page,
    cut,
    cut_journal,
    alter,
    alter_open,
    alter_kept,
)


async def play(sound: Sound, folder: Path, rng: random.Random) -> str:
    """One round: damage a copy in `folder`, open it, use it; returns how it ended. Raises: AssertionError."""
    damage = rng.choice(DAMAGES)
    while_open, loses = damage is alter_open, damage in (alter_open, cut_journal)
    shutil.copytree(sound.killed if damage is cut_journal else sound.stopped, folder)
    file = folder / "jobs.sqlite3"
    touched = None if while_open else damage(file, rng)
    store = SqliteStore(folder)
    try:
        await asyncio.wait_for(store.open(), OPENS_S)
        if while_open:
            touched = damage(file, rng)
        records = await _use(store, sound, loses=loses)
        assert touched is None or records <= 2 * touched, "a record fell that was not touched"
        return f"{damage.__name__}: {'set aside' if records else 'nothing lost'}"
    except StoreCorrupt as refusal:
        await store.close()
        copy = next((folder / "backups").iterdir())
        if f"copy {copy.parent.name}/{copy.name} to its place" not in str(refusal):
            raise AssertionError(f"no copy is named: {refusal}") from refusal
        for part in folder.glob("jobs.sqlite3*"):
            part.unlink()
        shutil.copyfile(copy, file)
        store = SqliteStore(folder)
        await store.open()
        assert len(await store.list_jobs(limit=1000)) == JOBS // 2
        return f"{damage.__name__}: refused, the copy named"
    finally:
        await store.close()


async def _use(store: SqliteStore, sound: Sound, *, loses: bool) -> int:
    """Everything that a gateway does with its store goes on; returns how many records are set aside.

    `loses`: what was not on disk yet, or what nobody can miss while the store is open, is not missed.
    """
    if loses and (lease := await store.claim(WORKER)) is not None:  # a claim may be the first to meet a damaged one
        await store.commit(lease, Succeeded())
    damaged = await store.damaged()
    assert await store.ended_before(store.steady() - DAY_S, keep_newest=1000) == [], "history would be forgotten"
    lost = 0
    for job_id, job in sound.jobs.items():
        try:
            found = await store.get(job_id)
            assert found == job or loses, f"another job than was stored: {found} {job}"
        except JobDamaged:
            pass
        except JobNotFound:
            lost += 1
    assert loses or lost <= len(damaged), "a job is gone that no damaged record tells of"
    for owner in (None, "a", "b"):
        listed = await store.list_jobs(owner=owner, words=("PICTURE",), limit=1000)
        assert loses or owner or len(listed) + len(damaged) >= len(sound.jobs)
    await store.stats()
    await store.missed_events("a", 0)
    await store.missed_events("a", None)
    assert (await store.submit(a_job(), Bounds())).created
    waiting = await store.waiting()
    claimed = 0
    while (lease := await store.claim(WORKER)) is not None:
        assert (await store.commit(lease, Succeeded()))[0] == "committed"
        claimed += 1
    assert claimed == len(waiting) > 0 or loses
    assert not store.order("engine")
    await store.delete([job.id for job in await store.ended_before(0.0, keep_newest=5)])
    assert len(await store.list_jobs(states=[State.QUEUED, State.RUNNING])) == 0
    inputs = {job.plan.inputs for job in sound.jobs.values()}
    await store.drop_unused_blobs(-1.0)
    for names in inputs if damaged else ():
        for name in names:
            await store.blob(name)
    assert await store.put_blob(b"another", "a", bounds=InputBounds.of(10**9))
    await store.check()
    assert await store.back_up(0.0)
    return len(await store.damaged())


def strain(folder: Path, count: int, seed: int) -> dict[str, int]:
    """So many rounds; how often each ended how. Raises: AssertionError naming the round."""

    async def story() -> dict[str, int]:
        sound, ends = await make(folder), dict[str, int]()
        for number in range(count):
            place = folder / "round"
            try:
                end = await play(sound, place, random.Random(f"{seed} {number}"))
            except Exception as error:
                raise AssertionError(f"round {number} of seed {seed}: {error!r}") from error
            shutil.rmtree(place)
            ends[end] = ends.get(end, 0) + 1
        return ends

    return asyncio.run(story())
