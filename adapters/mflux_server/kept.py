"""What mflux-server's protocol remembers between two requests: the model that was loaded last. Gone at a restart."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core import Core

PROTOCOL = "mflux-server"


@dataclass(slots=True)
class Kept:
    model: str | None = None
    """For all clients, as in mflux-server; None is the gateway's default."""


def kept(core: Core) -> Kept:
    found: Kept = core.kept.setdefault(PROTOCOL, Kept())
    return found


def chosen(core: Core) -> str | None:
    """The model that /api/generate draws with."""
    return kept(core).model
