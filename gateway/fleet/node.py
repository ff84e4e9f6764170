"""Node: one process of the fleet, a gateway or a worker, as it reports itself to the others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.jobs.plans import Lane

NodeKind = Literal["gateway", "worker"]
NodeState = Literal["starting", "ready", "draining", "down"]


@dataclass(frozen=True, slots=True)
class Node:
    """A process of the fleet. `name` is the operator's and outlives restarts; `id` belongs to one process."""

    id: str
    name: str
    kind: NodeKind
    version: str
    """Version of the program, such as "1.2.0"."""
    lanes: tuple[Lane, ...] = ()
    """The lanes whose jobs it runs."""
    labels: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    """The device that draws, such as "Apple M4 Max"; None where it draws nothing."""
    memory_limit_bytes: int | None = None
    models: tuple[str, ...] = ()
    """The models on its disk."""
    loras: tuple[str, ...] = ()
    """The LoRAs in its folders."""
    files: tuple[str, ...] = ()
    """The VAE files and textual inversions in its folders, by their names among the inputs of a run."""
    loaded_model: str | None = None
    """The model in its engine's memory."""
    jobs: tuple[str, ...] = ()
    """Ids of the jobs that it runs now."""
    state: NodeState = "starting"
    reason: str | None = None
    """Why it takes no jobs, as one sentence; None where it takes them."""
    costs: str = ""
    """What its forecaster has learned, as JSON of `gateway.forecast.costs`; empty: nothing yet."""


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node with the seconds since its last report, by the database's clock."""

    node: Node
    seen_s: float
    is_draining: bool = False
    """The operator has asked that it takes no more jobs; survives its restarts."""
