"""Queries over many jobs: statistics, events that an owner missed. SQL only; knows no thread and no order."""

from __future__ import annotations

import re

from gateway.jobs.job import Job, State
from gateway.store import rows
from gateway.store.base import MissedEvents, Stats
from gateway.store.connection import Connection

STATES = frozenset(State)
FORGOTTEN = "forgotten events"
"""Name of a stored text: the number up to which events may have been deleted."""
PLANS_AT_ONCE = 2000
INPUT = re.compile(r'"([0-9a-f]{64})"')
"""Input images in a plan: whatever looks like the name of one."""
LIVE_MOST = 500
"""Jobs of one owner that a client is shown when it begins to listen."""


def missed_events(db: Connection, owner: str, after: int | None, limit: int) -> MissedEvents:
    """Like `JobStore.missed_events`."""
    last = db.last_number("events")
    if after is not None and forgotten(db) <= after <= last:
        events = rows.events_of(db, owner, after, limit)
        return MissedEvents(events[-1].number if len(events) == limit else last, events=tuple(events))
    live = "FROM jobs WHERE state = ? AND owner = ?"
    count, jobs = 0, list[Job]()
    for state in ("running", "queued"):
        count += db.execute(f"SELECT count(*) {live}", (state, owner)).fetchone()[0]
        first = f"SELECT * {live} ORDER BY number LIMIT ?"
        jobs += rows.fold_all(db, first, (state, owner, LIVE_MOST - len(jobs)))
    jobs.sort(key=lambda job: job.number)
    return MissedEvents(last, live=tuple(jobs), live_count=int(count))


def stats(db: Connection) -> Stats:
    """Counts over all stored jobs."""
    groups = db.execute(
        "SELECT state, protocol, count(*), sum(images), sum(CASE WHEN finished_steady > started_steady"
        " THEN finished_steady - started_steady ELSE 0 END) FROM jobs GROUP BY 1, 2"
    )  # reads the index jobs_counts
    known = [row for row in groups if row[0] in STATES]
    counts = {(State(row[0]), str(row[1])): int(row[2]) for row in known}
    drawn = [row for row in known if row[0] == State.SUCCEEDED]
    images, seconds = (sum(row[column] for row in drawn) for column in (3, 4))
    return Stats(counts, int(images), float(seconds))


def ended_before(db: Connection, at: float, keep_newest: int, limit: int) -> list[Job]:
    """Like `JobStore.ended_before`."""
    ended = "SELECT number FROM jobs WHERE finished_at IS NOT NULL"
    too_many = db.execute(f"{ended} ORDER BY number DESC LIMIT 1 OFFSET ?", (keep_newest,)).fetchone()
    oldest = f"SELECT * FROM ({ended} AND number <= ? ORDER BY number LIMIT ?) AS oldest"
    old = f"SELECT * FROM ({ended} AND finished_steady < ? ORDER BY finished_steady LIMIT ?) AS old"
    last = 0 if too_many is None else too_many["number"]
    numbers = db.execute(f"{oldest} UNION {old} ORDER BY number LIMIT ?", (last, limit, at, limit, limit)).fetchall()
    return rows.by_number(db, [row["number"] for row in numbers])


def inputs_after(db: Connection, number: int) -> tuple[int | None, set[str]]:
    """Names of inputs in a page of jobs after `number`, and the number of the page's last job; None after the end."""
    plans = db.execute(
        "SELECT number, plan FROM jobs WHERE number > ? ORDER BY number LIMIT ?", (number, PLANS_AT_ONCE)
    ).fetchall()
    names = {name for row in plans for name in INPUT.findall(row["plan"])}
    return (plans[-1]["number"] if plans else None), names


def forgotten(db: Connection) -> int:
    """The number up to which events may have been deleted."""
    return int(rows.stored_text(db, FORGOTTEN) or 0)


def forget(db: Connection, number: int) -> None:
    rows.store_text(db, FORGOTTEN, str(number))
