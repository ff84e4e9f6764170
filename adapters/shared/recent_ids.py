"""Ids that clients give their own requests, and the jobs of these requests. Lost at a restart."""

from __future__ import annotations

from collections import OrderedDict


class RecentIds:
    """The newest ids of each owner with their jobs; beyond `most`, the oldest of all owners are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def put(self, owner: str, client_id: str, job_id: str) -> None:
        """Remember the job of an id; an id used again means its newest job."""
        self._jobs[owner, client_id] = job_id
        self._jobs.move_to_end((owner, client_id))
        if len(self._jobs) > self._most:
            self._jobs.popitem(last=False)

    def job_of(self, owner: str, client_id: str) -> str | None:
        """The job of an id; None where this owner has not used the id."""
        return self._jobs.get((owner, client_id))

    def of(self, owner: str) -> dict[str, str]:
        """The jobs of one owner by id, oldest first."""
        return {client_id: job for (other, client_id), job in self._jobs.items() if other == owner}
