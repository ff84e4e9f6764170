"""The names clients give their own requests, and the jobs that came of them. Lives as long as the gateway runs."""

from __future__ import annotations

from collections import OrderedDict

from gateway.context import Core

KEPT = 4096


class RequestIds:
    """A client's request_id, per owner, to the id of its newest job of that name; the oldest are forgotten."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    def put(self, owner: str, request_id: str, job_id: str) -> None:
        self._jobs[owner, request_id] = job_id
        self._jobs.move_to_end((owner, request_id))
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)

    def job(self, owner: str, request_id: str) -> str | None:
        return self._jobs.get((owner, request_id))


def request_ids(core: Core) -> RequestIds:
    """The ones of this gateway."""
    found: RequestIds = core.kept.setdefault("v1.request_ids", RequestIds())
    return found
