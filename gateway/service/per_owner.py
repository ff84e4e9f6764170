"""What clients choose for the requests that follow: for each key its own, or one for all where there are no keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_OWNERS = 1024
EVERYBODY = ""


class PerOwner(Generic[T]):
    """A value for each of the owners that were heard of last, gone at a restart."""

    def __init__(self, make: Callable[[], T], *, divided: bool, most: int = MOST_OWNERS) -> None:
        """`make` gives the value of who has chosen nothing. Not `divided`: all owners have one value."""
        self._make = make
        self._divided = divided
        self._most = most
        self._values: OrderedDict[str, T] = OrderedDict()

    def of(self, owner: str) -> T:
        """This owner's value, to look at and to change."""
        whose = owner if self._divided else EVERYBODY
        value = self._values[whose] if whose in self._values else self._values.setdefault(whose, self._make())
        self._values.move_to_end(whose)
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value
