"""Reports: the newest snapshot of the processes that share the queue, for forecasts and for those who look at them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gateway.fleet.node import SeenNode

ALIVE_S = 15.0
"""Seconds after its last report for which a process counts as running."""

ReadNodes = Callable[[], Awaitable[Sequence[SeenNode]]]
"""Callback: reads the reports of the last minute, by name; may raise where the store does not answer."""


class Reports:
    """The newest snapshot. `nodes` returns the same object until `refresh` has read another one."""

    def __init__(self, read: ReadNodes) -> None:
        self._read = read
        self._nodes: tuple[SeenNode, ...] = ()

    def nodes(self) -> tuple[SeenNode, ...]:
        return self._nodes

    def update(self, seen: Sequence[SeenNode]) -> None:
        """Take reports that somebody else has read."""
        self._nodes = newest_of_each_name(seen)

    async def refresh(self) -> tuple[SeenNode, ...]:
        """Read the reports; where that fails, the snapshot stays. Raises: as `read`."""
        self.update(await self._read())
        return self._nodes


def newest_of_each_name(seen: Sequence[SeenNode]) -> tuple[SeenNode, ...]:
    """Of a restarted process only its newest report, by name: the earlier one did not always withdraw its own."""
    newest: dict[str, SeenNode] = {}
    for one in sorted(seen, key=lambda one: -one.seen_s):
        newest[one.node.name] = one
    return tuple(newest[name] for name in sorted(newest))


def is_up(seen: SeenNode) -> bool:
    """Whether a process takes jobs now, or would if nobody drained it."""
    return seen.node.state in ("ready", "draining") and seen.seen_s < ALIVE_S
