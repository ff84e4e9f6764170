"""Lists of jobs, newest first: SQL that reads an index from its newest entry on, whatever the filter.

SQLite merges one search for each combination of state and `hidden`; each reads only entries of jobs that match.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

from gateway.jobs.job import Job, State
from gateway.store import rows
from gateway.store.base import JobFilter

AMONG_FEW = 500
"""At most so many job ids are looked up one by one; with more, the owner's jobs are read from the newest on."""
PROMPT = "coalesce(plan->>'prompt', plan->>'drawn'->>'prompt')"
"""The prompt of a generated image, or of the image that is upscaled."""

Clause = tuple[str, tuple[str | int, ...]]
"""An SQL condition and its values."""


def listed(db: sqlite3.Connection, criteria: JobFilter, *, limit: int, before: int | None) -> list[Job]:
    """Jobs that match the filter, newest first; with `before`, those with a smaller number."""
    return rows.by_number(db, list(islice(_numbers(db, criteria, before), limit)), "DESC")


def _numbers(db: sqlite3.Connection, criteria: JobFilter, before: int | None) -> Iterator[int]:
    """The numbers of the matching jobs, read as far as they are taken."""
    among = criteria.get("among")
    common = _common(criteria, before)
    if among is not None and len(among) <= AMONG_FEW:
        choices = [[*_states(criteria), (f"id IN ({_marks(len(among))})", tuple(among))]]
        common = [(f"+{clause}" if clause.startswith("owner") else clause, values) for clause, values in common]
    else:
        choices = _choices(criteria)
    if not choices:
        return
    each, values = [], list[str | int]()
    for choice in choices:
        clauses = [*common, *choice]
        each.append(f"SELECT number, id FROM jobs WHERE {' AND '.join(clause for clause, _ in clauses) or '1'}")
        values += [value for _, given in clauses for value in given]
    found = db.execute(f"{' UNION ALL '.join(each)} ORDER BY number DESC", values)
    try:
        for row in found:
            if among is None or row["id"] in among:
                yield row["number"]
    finally:
        found.close()


def _common(criteria: JobFilter, before: int | None) -> list[Clause]:
    """The conditions that are the same in each search."""
    equal: tuple[tuple[str, str | int | None], ...] = (
        ("owner = ?", criteria.get("owner")),
        ("protocol = ?", criteria.get("protocol")),
        ("model = ?", criteria.get("model")),
        ("number < ?", before),
        *((f"instr(lower({PROMPT}), ?)", rows.lower(word)) for word in criteria.get("words", ())),
    )
    images: list[Clause] = [("images > 0", ())] if criteria.get("has_images") else []
    return [*((clause, (value,)) for clause, value in equal if value is not None), *images]


def _choices(criteria: JobFilter) -> list[list[Clause]]:
    """Conditions of which each search takes one: a state, and `hidden` where the index of protocols has it before."""
    states, hidden = criteria.get("states"), criteria.get("hidden")
    if criteria.get("owner") is None or criteria.get("has_images"):
        return [_states(criteria)]
    if criteria.get("protocol") is None:
        shown: list[Clause] = [] if hidden is None else [("hidden = ?", (hidden,))]
        return [shown] if states is None else [[*shown, ("state = ?", (str(state),))] for state in states]
    return [
        [("state = ?", (str(state),)), ("hidden = ?", (is_hidden,))]
        for state in (State if states is None else states)
        for is_hidden in ((False, True) if hidden is None else (hidden,))
    ]


def _states(criteria: JobFilter) -> list[Clause]:
    """The states and `hidden` in one condition each."""
    states, hidden = criteria.get("states"), criteria.get("hidden")
    clauses: list[Clause] = [] if hidden is None else [("hidden = ?", (hidden,))]
    if states is not None:
        clauses.append((f"state IN ({_marks(len(states))})", tuple(str(state) for state in states)))
    return clauses


def _marks(count: int) -> str:
    return ",".join("?" * count)
