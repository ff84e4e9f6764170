"""Names that clients give their own requests, and the jobs that came of them. Lost at a restart."""

from __future__ import annotations

from collections import OrderedDict


class RecentIds:
    """The newest names of each owner with their jobs; beyond `most` the oldest of all are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def put(self, owner: str, name: str, job_id: str) -> None:
        """A name used again means its newest job."""
        self._jobs[owner, name] = job_id
        self._jobs.move_to_end((owner, name))
        if len(self._jobs) > self._most:
            self._jobs.popitem(last=False)

    def job_of(self, owner: str, name: str) -> str | None:
        """The job of that name; None where this owner gave none of that name."""
        return self._jobs.get((owner, name))

    def of(self, owner: str) -> dict[str, str]:
        """Name to job of one owner, oldest first."""
        return {name: job for (whose, name), job in self._jobs.items() if whose == owner}
