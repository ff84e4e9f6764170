"""Packed events: the events of a job in one row, which says the same as theirs. Pure.

The row has seq 0 and the number and times of the last event; its fact has a line for each event, oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.store.checksum import Cells

SEQ = 0
"""seq of a packed row: those of events begin at 1."""


def packed(events: Sequence[Cells]) -> Cells | None:
    """One row for all events of a job, in order; None where that would not say the same."""
    lines = [f"{one['number']} {one['at']!r} {one['steady']!r} {one['fact']}" for one in events]
    row = {**dict(events[-1]), "seq": SEQ, "fact": "\n".join(lines)}
    return row if [dict(one) for one in unpacked([row])] == [dict(one) for one in events] else None


def unpacked(stored: Iterable[Cells]) -> list[Cells]:
    """The events of event rows; a packed row that is damaged stays as it is, so that its checksum does not match."""
    return [event for row in stored for event in (_events(row) if row["seq"] == SEQ else (row,))]


def _events(row: Cells) -> Sequence[Cells]:
    events: list[Cells] = []
    try:
        for seq, line in enumerate(row["fact"].split("\n"), 1):
            number, at, steady, fact = line.split(" ", 3)
            cells = {"number": int(number), "job_id": row["job_id"], "seq": seq, "at": float(at)}
            events.append({**cells, "fact": fact, "steady": float(steady)})
    except (ValueError, TypeError, AttributeError):
        return (row,)
    return events
