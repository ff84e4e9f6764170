"""What /sdapi remembers between two requests, until the gateway restarts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adapters.sdapi.routing import PROTOCOL
from adapters.sdapi.tasks import Tasks
from gateway.core import Core


@dataclass(slots=True)
class Kept:
    options: dict[str, Any] = field(default_factory=dict)
    """What POST /options set, for all clients, as in A1111."""
    tasks: Tasks = field(default_factory=Tasks)
    skipped: str | None = None
    """The job in which a picture was skipped last."""


def kept(core: Core) -> Kept:
    found: Kept = core.kept.setdefault(PROTOCOL, Kept())
    return found
