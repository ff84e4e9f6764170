"""The other processes that run jobs, as forecasts need them: what each has learned, has in memory, and runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.catalog import ModelSpec
from gateway.fleet.node import Node, SeenNode
from gateway.fleet.reports import ALIVE_S
from gateway.forecast.costs import Costs
from gateway.jobs.plans import Lane

log = logging.getLogger("gateway.forecast")

Needs = tuple[str, int | None] | None


@dataclass(frozen=True, slots=True)
class _Learned:
    text: str
    costs: Costs


class OtherNodes:
    """The nodes of the newest snapshot. `own_id` is the id of this one's; `weights_of` names the weights of a model."""

    def __init__(
        self,
        own_id: Callable[[], str],
        nodes: Callable[[], Sequence[SeenNode]],
        spec_of: Callable[[str], ModelSpec | None],
        weights_of: Callable[[str], str],
    ) -> None:
        self._own_id = own_id
        self._nodes = nodes
        self._spec_of = spec_of
        self._weights_of = weights_of
        self._learned: dict[str, _Learned] = {}
        """What each node has learned, by its name."""
        self._loaded: dict[str, Needs] = {}
        """What its newest job needed, by the node's id."""
        self._snapshot: Sequence[SeenNode] = ()
        self._takers: dict[Lane, tuple[Node, ...]] = {}
        self._models: dict[str, frozenset[str]] = {}
        """The weights on the disk of each node, by its id."""
        self._of_job: dict[str, Node] = {}
        """The node that runs a job, by the job's id; this process's jobs are left out."""
        self._own: SeenNode | None = None

    def of(self, lane: Lane) -> tuple[Node, ...]:
        """The other nodes that take jobs of this lane, or soon will."""
        self._read()
        return self._takers.get(lane, ())

    def takes(self, lane: Lane) -> bool:
        """Whether this process takes jobs of this lane, as far as it has reported itself."""
        self._read()
        own = self._own
        return own is None or (lane in own.node.lanes and not own.is_draining and own.node.state != "draining")

    def node_of(self, job_id: str) -> Node | None:
        """The other node that runs a job; None where none is known."""
        self._read()
        return self._of_job.get(job_id)

    def models(self, node_id: str | None = None) -> frozenset[str] | None:
        """The weights on a node's disk, by default on this one's; None where that is not known."""
        self._read()
        return self._models.get(self._own_id() if node_id is None else node_id)

    @property
    def own_limit_bytes(self) -> int | None:
        """The memory of this process's engine; None where that is not known."""
        self._read()
        return None if self._own is None else self._own.node.memory_limit_bytes

    def costs(self, node: Node) -> Costs:
        """What a node has learned; where that is nothing, or cannot be read, the first guesses."""
        learned = self._learned.get(node.name)
        if learned is None or (learned.text is not node.costs and learned.text != node.costs):
            costs = Costs(self._spec_of)
            try:
                costs.read_json(json.loads(node.costs) if node.costs else {})
            except (ValueError, TypeError, AttributeError):
                log.warning("what %s has learned about its speed cannot be read", node.name)
                costs = Costs(self._spec_of)
            learned = self._learned[node.name] = _Learned(node.costs, costs)
        return learned.costs

    def loaded(self, node: Node) -> Needs:
        """The model and bits in a node's memory."""
        if node.loaded_model is None:
            return None
        weights, newest = self._weights_of(node.loaded_model), self._loaded.get(node.id)
        if newest is not None and newest[0] == weights:
            return newest
        spec = self._spec_of(node.loaded_model)
        return weights, None if spec is None else spec.quantize

    def has_loaded(self, needs: Needs) -> bool:
        """Whether a node that takes jobs of the engine has this in memory, so that it probably runs such a job."""
        return any(self.loaded(node) == needs for node in self.of("engine"))

    def note_loaded(self, node: Node, needs: Needs) -> None:
        """Note what a job needed that runs on a node without a load."""
        self._loaded[node.id] = needs

    def _read(self) -> None:
        """Sort a new snapshot."""
        snapshot = self._nodes()
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        own_id = self._own_id()
        self._own = next((seen for seen in snapshot if seen.node.id == own_id), None)
        takers: dict[Lane, list[Node]] = {}
        self._of_job, self._models = {}, {}
        for seen in snapshot:
            node = seen.node
            self._models[node.id] = frozenset(map(self._weights_of, node.models))
            if node.id == own_id:
                continue
            self._of_job |= dict.fromkeys(node.jobs, node)
            is_here = seen.seen_s < ALIVE_S and node.state in ("ready", "starting")
            if is_here and not seen.is_draining:
                for lane in node.lanes:
                    takers.setdefault(lane, []).append(node)
        self._takers = {lane: tuple(nodes) for lane, nodes in takers.items()}
        _keep(self._learned, {seen.node.name for seen in snapshot})
        _keep(self._loaded, {seen.node.id for seen in snapshot})


def _keep(values: dict[str, _Learned] | dict[str, Needs], names: set[str]) -> None:
    for name in values.keys() - names:
        del values[name]
