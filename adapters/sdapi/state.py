"""State of /sdapi between two requests, lost at a restart: options, checkpoint, tasks."""

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
class ClientOptions:
    """Options set by POST /options: shared by all clients, as in A1111; for each key its own where there are keys."""

    options: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    """The model of requests that name none; None: the gateway's default."""


@dataclass(slots=True)
class State:
    """The state of the protocol in one gateway."""

    client_options: PerOwner[ClientOptions]
    tasks: RecentIds = field(default_factory=lambda: RecentIds(MOST_TASKS))
    """Jobs by the `force_task_id` of their client, which asks for the progress of its own job by it."""
    skipped: str | None = None
    """The job in which an image was skipped last."""


def state_of(core: Core) -> State:
    divided = core.settings.access.keys_file is not None
    state: State = core.adapter_state.setdefault(PROTOCOL, State(PerOwner(ClientOptions, divided=divided)))
    return state


def client_options(request: Request) -> ClientOptions:
    """The options of this client."""
    return state_of(core_of(request)).client_options.of(owner_of(request))


def checkpoint_of(request: Request) -> str:
    """The model of requests that name none."""
    return client_options(request).checkpoint or core_of(request).library.default
