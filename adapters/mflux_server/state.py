"""What mflux-server's protocol remembers between two requests: the model that was loaded last, gone at a restart, and
the encoding of each task, kept in its job's note."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from gateway.context import Core
from gateway.service.per_owner import PerOwner

PROTOCOL = "mflux-server"


@dataclass(slots=True)
class State:
    model: str | None = None
    """None is the gateway's default."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The file format in which a task's image is answered."""

    format: str = "JPEG"
    """As the client named it, in capitals. Anything but PNG is encoded as JPEG."""
    quality: int = 85

    @property
    def is_png(self) -> bool:
        return self.format == "PNG"

    @property
    def media_type(self) -> str:
        return "image/png" if self.is_png else "image/jpeg"

    def to_note(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_note(cls, note: str) -> Encoding:
        return cls(**json.loads(note)) if note else cls()


def state_of(core: Core, owner: str) -> State:
    """One state for all clients, as in mflux-server; one for each key where keys divide the clients."""
    divided = core.settings.access.keys_file is not None
    states: PerOwner[State] = core.adapter_state.setdefault(PROTOCOL, PerOwner(State, divided=divided))
    return states.of(owner)


def model_of(core: Core, owner: str) -> str | None:
    """The model that generate draws with."""
    return state_of(core, owner).model
