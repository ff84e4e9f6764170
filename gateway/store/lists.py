"""Lists of jobs, newest first: SQL that reads an index from its newest entry on, whatever the filter.

SQLite merges one search for each combination of state and `hidden`; each reads only entries of jobs that match.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from gateway.jobs.job import Job, State
from gateway.store import rows
from gateway.store.base import JobFilter
from gateway.store.connection import Connection
from gateway.store.prompt_index import IndexedPrompt, IndexUnusable, LastIndexed, PromptIndex

AMONG_FEW = 500
"""At most so many job ids are looked up one by one; with more, the owner's jobs are read from the newest on."""
NAMED_AT_ONCE = 200
"""Jobs named by the index of prompts that are read together."""
GONE_MOST = 1000

Clause = tuple[str, tuple[str | int, ...]]
"""An SQL condition and its values."""


def listed(
    db: Connection, criteria: JobFilter, *, limit: int, before: int | None, prompts: PromptIndex | None
) -> list[Job]:
    """Jobs that match the filter, newest first; with `before`, those with a smaller number."""
    try:
        numbers = _searched(db, criteria, before, limit, prompts)
    except IndexUnusable:
        numbers = list(islice(_numbers(db, criteria, before), limit))
    return rows.by_number(db, numbers, "DESC")


def _searched(
    db: Connection, criteria: JobFilter, before: int | None, limit: int, prompts: PromptIndex | None
) -> list[int]:
    """The numbers of matching jobs: those newer than the index, then those it names. Raises: IndexUnusable."""
    words, owner = criteria.get("words"), criteria.get("owner")
    if prompts is None or not words or owner is None:
        raise IndexUnusable
    with prompts.matches(owner, words, before) as (last, named):
        if not _belongs(db, last):
            raise IndexUnusable
        numbers = list(islice(_numbers(db, criteria, before, ("number > ?", (last.number,))), limit))
        while len(numbers) < limit and (some := list(islice(named, NAMED_AT_ONCE))):
            which = f"number IN ({rows.marks(len(some))})"
            matching = _numbers(db, criteria, before, (which, tuple(some)), is_few=True)
            numbers += islice(matching, limit - len(numbers))
    return numbers


def unindexed(db: Connection, prompts: PromptIndex, limit: int) -> list[IndexedPrompt]:
    """The next prompts for the index, which begins anew where it has too many of jobs that are gone.

    Raises: IndexUnusable.
    """
    last = prompts.last()
    if not _belongs(db, last) or last.count > 2 * db.execute("SELECT count(*) FROM jobs").fetchone()[0] + GONE_MOST:
        prompts.remove()
        last = prompts.last()
    prompt = f"coalesce({db.dialect.prompt}, '')"
    newer = f"SELECT number, id, owner, {prompt} FROM jobs WHERE number > ? ORDER BY number LIMIT ?"
    return [IndexedPrompt(*row) for row in db.execute(newer, (last.number, limit))]


def _belongs(db: Connection, last: LastIndexed) -> bool:
    """Whether an index was made of this database, and not of an earlier or another one."""
    row = db.execute("SELECT id FROM jobs WHERE number = ?", (last.number,)).fetchone()
    is_counted = last.number <= db.last_number("jobs")
    return is_counted and (row is None or bool(row[0] == last.job_id))


def _numbers(
    db: Connection,
    criteria: JobFilter,
    before: int | None,
    *within: Clause,
    is_few: bool = False,
) -> Iterator[int]:
    """The numbers of the matching jobs, read as far as they are taken; `is_few`: `within` names a few jobs."""
    among = criteria.get("among")
    common = [*_common(db, criteria, before), *within]
    if among is not None and len(among) <= AMONG_FEW and not is_few:
        common.append((f"id IN ({rows.marks(len(among))})", tuple(among)))
        is_few = True
    if is_few:
        choices = [_states(criteria)]
        common = [
            (f"{db.dialect.unindexed}{clause}" if clause == "owner = ?" else clause, values)
            for clause, values in common
        ]
    elif not (choices := _choices(criteria)):
        return
    each, values = [], list[str | int]()
    for choice in choices:
        clauses = [*common, *choice]
        each.append(f"SELECT number, id FROM jobs WHERE {' AND '.join(clause for clause, _ in clauses) or 'TRUE'}")
        values += [value for _, given in clauses for value in given]
    matches = db.stream(f"{' UNION ALL '.join(each)} ORDER BY number DESC", values)
    try:
        for row in matches:
            if among is None or row["id"] in among:
                yield row["number"]
    finally:
        matches.close()


def _common(db: Connection, criteria: JobFilter, before: int | None) -> list[Clause]:
    """The conditions that are the same in each search."""
    equal: tuple[tuple[str, str | int | None], ...] = (
        ("owner = ?", criteria.get("owner")),
        ("protocol = ?", criteria.get("protocol")),
        ("model = ?", criteria.get("model")),
        ("number < ?", before),
        *((db.dialect.has_word, rows.lower(word)) for word in criteria.get("words", ())),
    )
    images: list[Clause] = [("images > 0", ())] if criteria.get("has_images") else []
    return [*((clause, (value,)) for clause, value in equal if value is not None), *images]


def _choices(criteria: JobFilter) -> list[list[Clause]]:
    """Conditions of which each search takes one: a state, and `hidden` where the index of protocols has it before."""
    states, hidden = criteria.get("states"), criteria.get("hidden")
    if criteria.get("owner") is None or criteria.get("has_images"):
        return [_states(criteria)]
    if criteria.get("protocol") is None:
        shown: list[Clause] = [] if hidden is None else [("hidden = ?", (int(hidden),))]
        return [shown] if states is None else [[*shown, ("state = ?", (str(state),))] for state in states]
    return [
        [("state = ?", (str(state),)), ("hidden = ?", (int(is_hidden),))]
        for state in (State if states is None else states)
        for is_hidden in ((False, True) if hidden is None else (hidden,))
    ]


def _states(criteria: JobFilter) -> list[Clause]:
    """The states and `hidden` in one condition each."""
    states, hidden = criteria.get("states"), criteria.get("hidden")
    clauses: list[Clause] = [] if hidden is None else [("hidden = ?", (int(hidden),))]
    if states is not None:
        clauses.append((f"state IN ({rows.marks(len(states))})", tuple(str(state) for state in states)))
    return clauses
