"""Rights: who may do what affects other clients: everybody without keys, otherwise the operators. Pure; no protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.errors import Forbidden

Deed = Literal["pull", "stop_pull", "remove", "unload", "clear_quarantine", "pause", "drain", "raise_priority"]
"""`pull` starts a download that others may wait for; `pause` and `drain` include resuming."""

SENTENCES: Mapping[Deed, str] = {
    "pull": "This key may not download models.",
    "stop_pull": "This key may not stop a download that others wait for.",
    "remove": "This key may not remove models.",
    "unload": "This key may not unload what others draw with.",
    "clear_quarantine": "This key may not clear a model that was set aside.",
    "pause": "This key may not stop everybody's queue.",
    "drain": "This key may not drain workers.",
    "raise_priority": "This key may not raise its priority.",
}

GATEWAY = "gateway"
"""Owner of what the gateway does by itself; no client's owner has this form."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights of owners, from `access.operators`."""

    operators: frozenset[str] | None = None
    """Owners who may do every deed. None: there are no keys, and everybody may."""

    @classmethod
    def of_keys(cls, operators: Iterable[str]) -> Rights:
        """Rights if there are keys: `operators` are names of keys."""
        return cls(frozenset(f"key:{name}" for name in operators))

    def is_operator(self, owner: str) -> bool:
        """Whether the owner is an operator; without keys everybody is."""
        return self.operators is None or owner in self.operators

    def may(self, owner: str, deed: Deed) -> bool:
        """Whether this owner may do this. An operator may do all deeds, others none."""
        return deed in SENTENCES and (owner == GATEWAY or self.is_operator(owner))

    def check(self, owner: str, deed: Deed, *, message: str | None = None, param: str | None = None) -> None:
        """Raises: Forbidden with `message`, or with the deed's own sentence."""
        if not self.may(owner, deed):
            raise Forbidden(message or SENTENCES[deed], param=param)
