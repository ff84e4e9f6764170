"""The uids under which clients launched models, and how far each launch is. Lives as long as the gateway runs.

With keys they are each key's own, without keys all clients have the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from adapters.v1.payloads import BORROWED_NAME
from gateway.context import Core
from gateway.errors import InvalidRequest, JobDamaged, JobNotFound
from gateway.jobs.job import Job, State
from gateway.service.per_owner import PerOwner

KEPT = 256
_UID = re.compile(r"\w[\w.:@+ -]{0,127}")
RESERVED = frozenset({"instances"})
"""Paths below /v1/models that are no model."""

Status = Literal["CREATING", "LOADING", "READY", "ERROR", "TERMINATED"]
"""Source: `LaunchStatus` of Xinference 4.1."""
STATUS: Mapping[State | None, Status] = {
    None: "CREATING",
    State.QUEUED: "CREATING",
    State.RUNNING: "LOADING",
    State.SUCCEEDED: "READY",
    State.FAILED: "ERROR",
    State.CANCELLED: "TERMINATED",
}


@dataclass(frozen=True, slots=True)
class Launched:
    """`model` is the name of what draws or reads; `job_id` the job that loads it, None where none was needed."""

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
        self._known: dict[str, Launched] = {}

    def __iter__(self) -> Iterator[Launched]:
        return iter(sorted(self._known.values(), key=lambda launch: launch.uid))

    def find(self, uid: str) -> Launched | None:
        return self._known.get(uid)

    def model_of(self, uid: str) -> str:
        """The model behind a uid that somebody launched; any other name is its own."""
        launch = self._known.get(uid)
        return uid if launch is None else launch.model

    def check(self, uid: str, model: str) -> None:
        """Raises: InvalidRequest for a uid that means another model, or one too many."""
        known = self._known.get(uid)
        if known is not None and known.model != model:
            raise InvalidRequest(f"Model is already in the model list, uid: {uid}", param="model_uid")
        if known is None and len(self._known) >= KEPT:
            raise InvalidRequest(f"At most {KEPT} launched models are kept: terminate one.", param="model_uid")

    def put(self, launch: Launched) -> None:
        self._known[launch.uid] = launch

    def drop(self, uid: str) -> Launched | None:
        return self._known.pop(uid, None)

    def drop_of(self, job_id: str) -> None:
        """What this job was to load did not come."""
        for launch in [launch for launch in self._known.values() if launch.job_id == job_id]:
            del self._known[launch.uid]


def launches(core: Core, owner: str) -> Launches:
    """Those that this owner sees."""
    made: PerOwner[Launches] | None = core.kept.get("v1.launches")
    if made is None:
        made = PerOwner(Launches, divided=core.settings.access.keys_file is not None)
        core.kept["v1.launches"] = made
    return made.of(owner)


async def looked_at(core: Core, known: Launches) -> list[Launched]:
    """All launches as they stand now; a cancelled one is gone."""
    return [launch for launch in [await _now(core, launch, known) for launch in known] if launch is not None]


async def running(core: Core, owner: str) -> list[Launched]:
    """The launches that came to their end well."""
    return [launch for launch in await looked_at(core, launches(core, owner)) if launch.status == "READY"]


async def launching(core: Core, known: Launches, uid: str) -> Job | None:
    """The job that loads what was launched under this uid, while it has not ended."""
    launch = known.find(uid)
    if launch is None or launch.job_id is None or launch.has_ended:
        return None
    job = await _job(core, launch.job_id)
    return None if job is None or job.state is None or job.state.terminal else job


async def _now(core: Core, launch: Launched, known: Launches) -> Launched | None:
    if launch.has_ended or launch.job_id is None:
        return launch
    job = await _job(core, launch.job_id)
    if known.find(launch.uid) is not launch:
        return known.find(launch.uid)
    if job is None:
        now = replace(launch, status="READY")  # its job ended so long ago that nothing of it is kept
    else:
        failure = None if job.failure is None else job.failure.message
        now = replace(launch, status=STATUS[job.state], failure=failure)
    if now.status == "TERMINATED":
        known.drop(launch.uid)
        return None
    if now != launch:
        known.put(now)
    return now


async def _job(core: Core, job_id: str) -> Job | None:
    try:
        return await core.service.get(job_id)
    except (JobNotFound, JobDamaged):
        return None


def check_uid(uid: str, taken: Container[str]) -> None:
    """Raises: InvalidRequest for a uid of the client's own choice that is no name, or a model's that is served."""
    if not _UID.fullmatch(uid) or uid in RESERVED:
        raise InvalidRequest(
            "A uid begins with a letter or digit and has at most 128 letters, digits, spaces and _ . : @ + -",
            param="model_uid",
        )
    if uid in taken or BORROWED_NAME.fullmatch(uid):
        raise InvalidRequest(f"Model is already in the model list, uid: {uid}", param="model_uid")
