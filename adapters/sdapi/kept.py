"""What /sdapi remembers between two requests, until the gateway restarts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from adapters.base import core_of, owner_of
from adapters.sdapi.routing import PROTOCOL
from adapters.sdapi.tasks import Tasks
from gateway.context import Core
from gateway.service.per_owner import PerOwner


@dataclass(slots=True)
class Chosen:
    """What POST /options set: for all clients, as in A1111; of each key its own where keys divide them."""

    options: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    """The model of requests that name none; None means the gateway's default."""


@dataclass(slots=True)
class Kept:
    chosen: PerOwner[Chosen]
    tasks: Tasks = field(default_factory=Tasks)
    skipped: str | None = None
    """The job in which a picture was skipped last."""


def kept(core: Core) -> Kept:
    divided = core.settings.access.keys_file is not None
    found: Kept = core.kept.setdefault(PROTOCOL, Kept(PerOwner(Chosen, divided=divided)))
    return found


def chosen(request: Request) -> Chosen:
    """What this client has set."""
    return kept(core_of(request)).chosen.of(owner_of(request))


def checkpoint_of(request: Request) -> str:
    """The model of requests that name none."""
    return chosen(request).checkpoint or core_of(request).library.default
