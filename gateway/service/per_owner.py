"""A value for each owner, such as options for later requests: one for each key, or one for all without keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_OWNERS = 1024
EVERYBODY = ""


class PerOwner(Generic[T]):
    """A value for each of the owners that were active last; lost at a restart."""

    def __init__(self, make: Callable[[], T], *, divided: bool, most: int = MOST_OWNERS) -> None:
        """`make` gives the first value of an owner. Not `divided`: all owners share one value."""
        self._make = make
        self._divided = divided
        self._most = most
        self._values: OrderedDict[str, T] = OrderedDict()

    def of(self, owner: str) -> T:
        """This owner's value, to read and to change."""
        key = owner if self._divided else EVERYBODY
        value = self._values[key] if key in self._values else self._values.setdefault(key, self._make())
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value
