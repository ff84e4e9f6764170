"""Types of what /api/v1 answers about workers. Knows no job. The gateway's own: the documentation has no workers."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from gateway.jobs.plans import LaneName


class WorkerShown(TypedDict):
    """A process that runs jobs. `job_ids` are your own of its jobs, and downloads; `running_count` counts everybody's.
    `reason` says why it takes no jobs. `draining`: an operator has it take no more. `seconds_per_image` is learned: of
    the loaded model, at its usual size and steps."""

    name: str
    kind: Literal["gateway", "worker"]
    version: str
    state: Literal["starting", "ready", "draining", "down"]
    reason: str | None
    draining: bool
    device: str | None
    memory_limit_bytes: int | None
    labels: dict[str, str]
    lanes: list[LaneName]
    models: list[str]
    loaded_model: str | None
    job_ids: list[str]
    running_count: int
    seconds_per_image: float | None
    seen_seconds_ago: float


class Workers(TypedDict):
    """Those that reported within the last minute; a gateway that shares its queue with no other process is the one."""

    workers: list[WorkerShown]
