"""What /v1 remembers between two requests, until the gateway restarts: names of requests, uids of launched models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from adapters.shared.recent_ids import RecentIds
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.service.per_owner import PerOwner

REQUEST_IDS_MOST = 4096
LAUNCHES_MOST = 256

Status = Literal["CREATING", "LOADING", "READY", "ERROR", "TERMINATED"]
"""Source: `LaunchStatus` of Xinference 4.1."""


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """One launched model: `model` is its own name, `job_id` the job that loads it, None where none was needed."""

    uid: str
    model: str
    job_id: str | None = None
    is_chosen: bool = False
    """Whether the client made this uid up, so that nothing else leads to the model under it."""
    status: Status = "CREATING"
    failure: str | None = None
    created_at: float = field(default_factory=time.time)

    @property
    def has_ended(self) -> bool:
        return self.status in ("READY", "ERROR", "TERMINATED")


class Launches:
    """The launches of one owner, by uid."""

    def __init__(self) -> None:
        self._records: dict[str, LaunchRecord] = {}

    def __iter__(self) -> Iterator[LaunchRecord]:
        return iter(sorted(self._records.values(), key=lambda record: record.uid))

    def find(self, uid: str) -> LaunchRecord | None:
        return self._records.get(uid)

    def model_of(self, uid: str) -> str:
        """The model behind a uid that somebody launched; any other name is its own."""
        record = self._records.get(uid)
        return uid if record is None else record.model

    def check(self, uid: str, model: str) -> None:
        """Raises: InvalidRequest for a uid that means another model, or one too many."""
        record = self._records.get(uid)
        if record is not None and record.model != model:
            raise InvalidRequest(f"Model is already in the model list, uid: {uid}", param="model_uid")
        if record is None and len(self._records) >= LAUNCHES_MOST:
            raise InvalidRequest(f"At most {LAUNCHES_MOST} launched models are kept: terminate one.", param="model_uid")

    def put(self, record: LaunchRecord) -> None:
        self._records[record.uid] = record

    def drop(self, uid: str) -> None:
        self._records.pop(uid, None)

    def drop_of(self, job_id: str) -> None:
        """Forget what this job was to load, because it failed."""
        for record in [record for record in self._records.values() if record.job_id == job_id]:
            del self._records[record.uid]


def launches_of(core: Core, owner: str) -> Launches:
    """The launches that this owner sees: with keys those of its key, without keys those of all clients."""
    per_owner: PerOwner[Launches] | None = core.adapter_state.get("v1.launches")
    if per_owner is None:
        per_owner = PerOwner(Launches, divided=core.settings.access.keys_file is not None)
        core.adapter_state["v1.launches"] = per_owner
    return per_owner.of(owner)


def request_ids(core: Core) -> RecentIds:
    """Jobs by the `request_id` that their client gave them."""
    recent: RecentIds = core.adapter_state.setdefault("v1.request_ids", RecentIds(REQUEST_IDS_MOST))
    return recent
