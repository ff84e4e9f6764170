"""Queries over many jobs: lists, statistics, events that an owner missed. SQL only; knows no thread and no order."""

from __future__ import annotations

import re
import sqlite3
from itertools import islice

from gateway.jobs.job import Job, State
from gateway.store import rows
from gateway.store.base import JobFilter, MissedEvents, Stats

STATES = frozenset(State)
FORGOTTEN = "forgotten events"
"""Name of a stored text: the number up to which events may have been deleted."""
PLANS_AT_ONCE = 2000
INPUT = re.compile(r'"([0-9a-f]{64})"')
"""Input images in a plan: whatever looks like the name of one."""
AMONG_FEW = 500
"""At most so many job ids are looked up one by one; with more, the owner's jobs are read from the newest on."""
LIVE_MOST = 500
"""Jobs of one owner that a client is shown when it begins to listen."""
PROMPT = "coalesce(plan->>'prompt', plan->>'drawn'->>'prompt')"
"""The prompt of a generated image, or of the image that is upscaled."""


def listed(db: sqlite3.Connection, criteria: JobFilter, *, limit: int, before: int | None) -> list[Job]:
    """Jobs that match the filter, newest first; with `before`, those with a smaller number."""
    where: list[str] = ["1"]
    values: list[str | int] = []
    filters: tuple[tuple[str, str | int | None], ...] = (
        ("owner = ?", criteria.get("owner")),
        ("protocol = ?", criteria.get("protocol")),
        ("hidden = ?", criteria.get("hidden")),
        ("model = ?", criteria.get("model")),
        ("number < ?", before),
        *((f"instr(lower({PROMPT}), ?)", rows.lower(word)) for word in criteria.get("words", ())),
    )
    for clause, value in filters:
        if value is not None:
            where.append(clause)
            values.append(value)
    if (states := criteria.get("states")) is not None:
        where.append(f"state IN ({','.join('?' * len(states))})")
        values += [str(state) for state in states]
    order = "ORDER BY number DESC"
    if (among := criteria.get("among")) is not None:
        if len(among) <= AMONG_FEW:
            where.append(f"id IN ({','.join('?' * len(among))})")
            values += among
        matches = db.execute(f"SELECT number, id FROM jobs WHERE {' AND '.join(where)} {order}", values)
        numbers = list(islice((row["number"] for row in matches if row["id"] in among), limit))
        matches.close()
        where, values = [f"number IN ({','.join('?' * len(numbers))})"], numbers
    return rows.fold_all(db, f"SELECT * FROM jobs WHERE {' AND '.join(where)} {order} LIMIT ?", (*values, limit))


def missed_events(db: sqlite3.Connection, owner: str, after: int | None, limit: int) -> MissedEvents:
    """Like `JobStore.missed_events`."""
    last = rows.last_number(db)
    if after is not None and forgotten(db) <= after <= last:
        events = rows.events_of(db, owner, after, limit)
        return MissedEvents(events[-1].number if len(events) == limit else last, events=tuple(events))
    live = "FROM jobs WHERE state IN ('queued', 'running') AND owner = ? AND finished_at IS NULL"
    (count,) = db.execute(f"SELECT count(*) {live}", (owner,)).fetchone()
    first = f"SELECT * {live} ORDER BY state = 'running' DESC, number LIMIT ?"
    jobs = sorted(rows.fold_all(db, first, (owner, LIVE_MOST)), key=lambda job: job.number)
    return MissedEvents(last, live=tuple(jobs), live_count=int(count))


def stats(db: sqlite3.Connection) -> Stats:
    """Counts over all stored jobs."""
    groups = db.execute("SELECT state, protocol, count(*) FROM jobs GROUP BY 1, 2")  # reads the index jobs_counts
    counts = {(State(row[0]), str(row[1])): int(row[2]) for row in groups if row[0] in STATES}
    images, seconds = db.execute(
        "SELECT coalesce(sum(images), 0), coalesce(sum(CASE WHEN finished_steady > started_steady"
        " THEN finished_steady - started_steady ELSE 0 END), 0) FROM jobs WHERE state = 'succeeded'"
    ).fetchone()
    return Stats(counts, int(images), float(seconds))


def ended_before(db: sqlite3.Connection, at: float, keep_newest: int, limit: int) -> list[Job]:
    """Like `JobStore.ended_before`."""
    sql = (
        "SELECT * FROM jobs WHERE finished_at IS NOT NULL AND (finished_steady < ? OR number NOT IN"
        " (SELECT number FROM jobs WHERE finished_at IS NOT NULL ORDER BY number DESC LIMIT ?))"
        " ORDER BY number LIMIT ?"
    )
    return rows.fold_all(db, sql, (at, keep_newest, limit))


def inputs_after(db: sqlite3.Connection, number: int) -> tuple[int | None, set[str]]:
    """Names of inputs in a page of jobs after `number`, and the number of the page's last job; None after the end."""
    plans = db.execute(
        "SELECT number, plan FROM jobs WHERE number > ? ORDER BY number LIMIT ?", (number, PLANS_AT_ONCE)
    ).fetchall()
    names = {name for row in plans for name in INPUT.findall(row["plan"])}
    return (plans[-1]["number"] if plans else None), names


def forgotten(db: sqlite3.Connection) -> int:
    """The number up to which events may have been deleted."""
    return int(rows.stored_text(db, FORGOTTEN) or 0)


def forget(db: sqlite3.Connection, number: int) -> None:
    rows.store_text(db, FORGOTTEN, str(number))
