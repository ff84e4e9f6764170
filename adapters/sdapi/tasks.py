"""Which job belongs to which `force_task_id`: how one client tells its own pictures from others'. Lost at a restart."""

from __future__ import annotations

from collections import OrderedDict

MOST_TASKS = 1024


class Tasks:
    """The newest tasks and their jobs. An owner sees none but its own."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def put(self, owner: str, task: str, job_id: str) -> None:
        self._jobs.pop((owner, task), None)
        self._jobs[owner, task] = job_id
        if len(self._jobs) > MOST_TASKS:
            self._jobs.popitem(last=False)

    def job_of(self, owner: str, task: str) -> str | None:
        return self._jobs.get((owner, task))

    def of(self, owner: str) -> dict[str, str]:
        """Task to job of one owner, oldest first."""
        return {task: job for (who, task), job in self._jobs.items() if who == owner}
