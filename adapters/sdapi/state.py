"""What /sdapi remembers between two requests, until the gateway restarts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from adapters.sdapi.protocol import PROTOCOL
from adapters.shared.context import core_of, owner_of
from adapters.shared.recent_ids import RecentIds
from gateway.context import Core
from gateway.service.per_owner import PerOwner

MOST_TASKS = 1024


@dataclass(slots=True)
class Chosen:
    """What POST /options set: for all clients, as in A1111; of each key its own where keys divide them."""

    options: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    """The model of requests that name none; None means the gateway's default."""


@dataclass(slots=True)
class State:
    chosen: PerOwner[Chosen]
    tasks: RecentIds = field(default_factory=lambda: RecentIds(MOST_TASKS))
    """Jobs by the `force_task_id` that their client gave them: how it tells its own pictures from others'."""
    skipped: str | None = None
    """The job in which a picture was skipped last."""


def state_of(core: Core) -> State:
    divided = core.settings.access.keys_file is not None
    found: State = core.kept.setdefault(PROTOCOL, State(PerOwner(Chosen, divided=divided)))
    return found


def chosen(request: Request) -> Chosen:
    """What this client has set."""
    return state_of(core_of(request)).chosen.of(owner_of(request))


def checkpoint_of(request: Request) -> str:
    """The model of requests that name none."""
    return chosen(request).checkpoint or core_of(request).library.default
