"""Roster: the nodes that a process knows of, and what they can run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gateway.fleet.node import Node, SeenNode
from gateway.jobs.plans import Lane

KNOWN_S = 600.0
"""Seconds for which a node counts that is away: it may restart."""
ALIVE_S = 15.0
"""Seconds after its last report in which a node counts as running."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a job of the engine needs of the node that runs it."""

    model: str
    loras: frozenset[str] = frozenset()
    memory_bytes: int = 0
    refiner: str | None = None
    files: frozenset[str] = frozenset()
    """VAE files and textual inversions, by their names among the inputs of a run."""

    def is_on(self, node: Node) -> bool:
        """Whether the node has the model, the LoRAs and all other files on its disk."""
        models = {self.model} if self.refiner is None else {self.model, self.refiner}
        return models <= set(node.models) and self.loras <= set(node.loras) and self.files <= set(node.files)

    def fits(self, node: Node) -> bool:
        """Whether the node's memory suffices."""
        return node.memory_limit_bytes is None or self.memory_bytes <= node.memory_limit_bytes


class Roster:
    """Roster of one process. `own` is its own report, which is always the newest."""

    def __init__(self, own: Callable[[], Node]) -> None:
        self._own = own
        self._seen: tuple[SeenNode, ...] = ()

    def update(self, seen: Sequence[SeenNode]) -> None:
        """Take the nodes that reported within the last `KNOWN_S`."""
        self._seen = tuple(seen)

    @property
    def own(self) -> Node:
        return self._own()

    @property
    def others(self) -> list[SeenNode]:
        own = self._own()
        return [one for one in self._seen if one.node.id != own.id]

    def with_lane(self, lane: Lane) -> list[Node]:
        """The nodes that run this lane, the own one first; of a restarted node only its newest process."""
        own, names = self._own(), set[tuple[str, str]]()
        nodes = [own] if lane in own.lanes else []
        for one in sorted(self.others, key=lambda one: one.seen_s):
            if lane in one.node.lanes and (one.node.kind, one.node.name) not in names:
                names.add((one.node.kind, one.node.name))
                nodes.append(one.node)
        return nodes

    def works(self, lane: Lane) -> bool:
        """Whether another node takes jobs of this lane now."""
        return any(
            lane in one.node.lanes and one.node.state == "ready" and one.seen_s < ALIVE_S and not one.is_draining
            for one in self.others
        )

    @property
    def loaded_models(self) -> tuple[str, ...]:
        """Models in the memory of running nodes, each once."""
        nodes = [self._own(), *(one.node for one in self.others if one.seen_s < ALIVE_S)]
        return tuple(dict.fromkeys(node.loaded_model for node in nodes if node.loaded_model is not None))

    @property
    def memory_bytes(self) -> int | None:
        """The largest memory limit of a node that draws; None where it is not known."""
        limits = [node.memory_limit_bytes for node in self.with_lane("engine")]
        return None if not limits or None in limits else max(limit for limit in limits if limit is not None)

    def has(self, model: str) -> bool:
        """Whether a node that draws has this model on its disk."""
        return any(model in node.models for node in self.with_lane("engine"))

    def has_lora(self, model: str, lora: str) -> bool:
        """Whether a node that draws has a model and this LoRA."""
        return any(model in node.models and lora in node.loras for node in self.with_lane("engine"))

    def has_fitting(self, need: Need) -> bool:
        """Whether a node has the model, and the job fits there; the LoRAs may still come."""
        fitting = self._fitting(need, self.with_lane("engine"))
        return any(need.model in node.models for node in fitting)

    def is_own(self, need: Need, *, may_fail: bool) -> bool:
        """Whether this node claims a job of the engine. `may_fail`: nothing will bring what no node has, so that the
        job fails as on a gateway without workers.
        """
        own = self._own()
        if need.is_on(own):
            return any(node.id == own.id for node in self._fitting(need, self.with_lane("engine")))
        return may_fail and self.is_nowhere(need)

    def is_nowhere(self, need: Need) -> bool:
        """Whether no node has the model and the LoRAs among those that the job fits on."""
        return not any(need.is_on(node) for node in self._fitting(need, self.with_lane("engine")))

    def is_own_download(self, need: Need) -> bool:
        """Whether this node claims a download for jobs with this need: they fit here, or nowhere. What they need else,
        such as the model of a LoRA, is here, or on no such node.
        """
        own = self._own()
        fitting = self._fitting(need, [node for node in self.with_lane("engine") if "network" in node.lanes])
        having = [node for node in fitting if need.model in node.models]
        return any(node.id == own.id for node in having or fitting)

    @staticmethod
    def _fitting(need: Need, nodes: Collection[Node]) -> list[Node]:
        """The nodes that the job fits on; all, where it fits nowhere."""
        return [node for node in nodes if need.fits(node)] or list(nodes)
