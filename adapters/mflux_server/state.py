"""What mflux-server's protocol remembers between two requests: the model that was loaded last. Gone at a restart."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.context import Core
from gateway.service.per_owner import PerOwner

PROTOCOL = "mflux-server"


@dataclass(slots=True)
class State:
    model: str | None = None
    """None is the gateway's default."""


def state_of(core: Core, owner: str) -> State:
    """For all clients, as in mflux-server; of each key its own where keys divide them."""
    divided = core.settings.access.keys_file is not None
    found: PerOwner[State] = core.kept.setdefault(PROTOCOL, PerOwner(State, divided=divided))
    return found.of(owner)


def chosen(core: Core, owner: str) -> str | None:
    """The model that /api/generate draws with."""
    return state_of(core, owner).model
