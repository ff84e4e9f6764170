"""Who may do what others feel: everybody where there are no keys, else the operators. Pure; knows no protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.errors import Forbidden

Deed = Literal["pull", "stop_pull", "remove", "unload", "clear_quarantine", "pause", "raise_priority"]
"""`pull` is to start a download, whoever waits for it; `pause` is to resume, too."""

SENTENCES: Mapping[Deed, str] = {
    "pull": "This key may not download models.",
    "stop_pull": "This key may not stop a download that others wait for.",
    "remove": "This key may not remove models.",
    "unload": "This key may not unload what others draw with.",
    "clear_quarantine": "This key may not clear a model that was set aside.",
    "pause": "This key may not stop everybody's queue.",
    "raise_priority": "This key may not raise its priority.",
}

GATEWAY = "gateway"
"""The owner of what the gateway does by itself; no client's owner is spelled so."""


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of owners, as `access.operators` gives them."""

    operators: frozenset[str] | None = None
    """Owners who may do every deed. None: no keys divide the users, and everybody may."""

    @classmethod
    def of_keys(cls, operators: Iterable[str]) -> Rights:
        """Where there are keys: `operators` are names of keys."""
        return cls(frozenset(f"key:{name}" for name in operators))

    def is_operator(self, owner: str) -> bool:
        """Everybody is, where no keys divide the users."""
        return self.operators is None or owner in self.operators

    def may(self, owner: str, deed: Deed) -> bool:
        """Whether this owner may do this. An operator may do all deeds, anybody else none."""
        return deed in SENTENCES and (owner == GATEWAY or self.is_operator(owner))

    def check(self, owner: str, deed: Deed, *, message: str | None = None, param: str | None = None) -> None:
        """Raises: Forbidden with `message`, or with the deed's own sentence."""
        if not self.may(owner, deed):
            raise Forbidden(message or SENTENCES[deed], param=param)
