"""Fleet: this process among the others that share its job store.

Reports itself, knows the others, renews the leases of its jobs, takes over those of processes that are gone, and
sends and receives what is no event of a job. Knows no protocol; the lanes know only their leases.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from gateway import __version__
from gateway.errors import GatewayError, StorageFault
from gateway.events.bus import EventBus
from gateway.events.messenger import Messenger
from gateway.events.previews import Previews
from gateway.events.relay import Relay
from gateway.events.running import RunningJobs
from gateway.fleet.messages import QueueChanged, SkipImage, UnloadModel
from gateway.fleet.node import Node, NodeKind, NodeState
from gateway.fleet.roster import KNOWN_S, Roster
from gateway.forecast import Forecaster
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.job import Job, Plans
from gateway.jobs.plans import LANES, EngineJob, Lane
from gateway.lanes.base import LaneRunner
from gateway.lanes.leases import Leases
from gateway.models.library import Library
from gateway.residency import ResidencyManager
from gateway.service.placement import Placement
from gateway.store.shared import SharedStore

log = logging.getLogger("gateway.fleet")

LOOK_S = 0.25
"""Seconds between two looks at whether there is something new to report."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The settings of one node."""

    name: str
    kind: NodeKind = "gateway"
    lanes: tuple[Lane, ...] = LANES
    """The lanes that it runs."""
    labels: Mapping[str, str] = field(default_factory=dict)
    lease_s: float = 20.0
    """Seconds until another node may take over a job whose node is silent."""
    report_s: float = 2.0
    """Seconds between two reports."""
    gateway_grace_s: float = 30.0
    """Seconds after which the attached jobs of a silent gateway are cancelled."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says about itself that changes while it runs."""

    state: NodeState
    reason: str | None = None
    device: str | None = None
    memory_limit_bytes: int | None = None
    loaded_model: str | None = None
    costs: str = ""


class Fleet:
    """The fleet as one process sees it. Belongs to one event loop.

    `status` is this node's own; `lanes` are those that it runs. `brings` says whether a download brings a model, or one
    of some LoRAs; `on_download` gets the progress of a download that runs elsewhere; `bring_missing` starts downloads
    of models that no node has, `sweep` removes what a job's attempt has left. `on_roster` is called when
    nodes have reported, `on_queue` when the queue has changed without an event, `on_skip` and `on_unload` with what
    another node asks for.
    """

    def __init__(
        self,
        store: SharedStore,
        options: FleetOptions,
        *,
        bus: EventBus,
        library: Library,
        residency: ResidencyManager,
        forecaster: Forecaster,
        lanes: Callable[[], Mapping[Lane, LaneRunner]],
        previews: Previews | None,
        status: Callable[[], NodeStatus],
        brings: Callable[[str, Collection[str]], bool],
        on_download: Callable[[str, ModelDownloading], None],
        bring_missing: Callable[[], Awaitable[None]],
        sweep: Callable[[Job], Awaitable[None]],
        on_roster: Callable[[], None] = lambda: None,
        on_queue: Callable[[], None],
        on_skip: Callable[[str], None],
        on_unload: Callable[[str | None], None],
    ) -> None:
        self.options = options
        self.leases = Leases(store, options.lease_s)
        self.messenger = Messenger(store)
        self.running = RunningJobs()
        self.roster = Roster(self._node)
        self._store = store
        self._lanes = lanes
        self._status = status
        self._bring_missing = bring_missing
        self._sweep = sweep
        self._on_roster = on_roster
        self._is_bringing = False
        self._contact_since: float | None = None
        """When the store answered for the first time since it was away, in the loop's seconds."""
        self._is_asked_to_drain = self._is_leaving = False
        self._reported: Node | None = None
        bus.listen(self.running.on_event)
        self._placement = Placement(
            store,
            library,
            residency.admission,
            self.roster,
            options.lanes,
            wake=self._wake_lane,
            brings=brings,
            is_set_aside=residency.is_set_aside,
        )
        bus.listen(self._placement.on_event)
        self._relay = Relay(
            bus=bus,
            messenger=self.messenger,
            running=self.running,
            forecaster=forecaster,
            previews=previews,
            shows_previews=options.kind == "gateway",
            on_download=on_download,
        )
        self.admission = residency.admission_within(lambda: self.roster.memory_bytes)
        """Whether a job fits on any node."""
        self._on_queue = on_queue
        self.messenger.on(SkipImage, lambda message: on_skip(message.job))
        self.messenger.on(UnloadModel, lambda message: on_unload(message.model))
        self.messenger.on(QueueChanged, lambda _: self._on_queue_changed())

    def _node(self) -> Node:
        status = self._status()
        return Node(
            id=self._store.node_id,
            name=self.options.name,
            kind=self.options.kind,
            version=__version__,
            lanes=self.options.lanes,
            labels=self.options.labels,
            device=status.device,
            memory_limit_bytes=status.memory_limit_bytes,
            models=self._placement.models if "engine" in self.options.lanes else (),
            loras=self._placement.loras if "engine" in self.options.lanes else (),
            files=self._placement.files if "engine" in self.options.lanes else (),
            loaded_model=status.loaded_model,
            jobs=self.leases.job_ids,
            state="draining" if self._is_leaving or self._is_asked_to_drain else status.state,
            reason=status.reason,
            costs=status.costs,
        )

    @property
    def is_draining(self) -> bool:
        """Whether this node takes no more jobs, because it leaves or the operator has asked for that."""
        return self._is_leaving or self._is_asked_to_drain

    async def start(self) -> None:
        """Report this node, and learn of the others and of the jobs that they run. Raises: as the store."""
        await self.running.start(self._store, self._relay.begin)
        await self._placement.start()
        await self._announce()

    async def run(self) -> None:
        """Report, renew, place jobs, and take over what others have left, until the process ends."""
        duties = (self.leases.run(), self._placement.run(), self._run_reports(), self._run_reaps())
        await asyncio.gather(*duties)

    async def drain(self) -> None:
        """Take no more jobs, and wait until those that run here have ended."""
        self._is_leaving = True
        self._drain_lanes()
        await self.leases.all_dropped()

    async def close(self) -> None:
        """Send no more messages. The store withdraws this node's report when it is closed."""
        await self.messenger.close()

    def forget(self, job_id: str) -> None:
        """Forget a job whose record was set aside."""
        self.running.forget(job_id)
        self._placement.forget(job_id)

    # ---- who runs what ---------------------------------------------------------------------------

    def held_jobs(self, lane: Lane) -> frozenset[str]:
        """Waiting jobs that this node does not claim."""
        return self._placement.held_jobs(lane)

    async def is_own(self, job_id: str, plan: Plans) -> bool:
        """Whether this node may claim a job of this plan now."""
        return await self._placement.is_own(job_id, plan)

    async def accepts(self, job: Job) -> bool:
        """Whether this node runs a job that it has claimed, which may have come a moment before."""
        return await self._placement.accepts(job)

    async def has(self, model: str) -> bool:
        """Whether a node that draws has the model; also where none is known, because one must come anyway."""
        if not self._may_have(model):
            await self.refresh()  # one may have come a moment ago
        return self._may_have(model)

    async def refresh(self) -> None:
        """Learn of the other nodes now."""
        self.roster.update(await self._store.nodes(KNOWN_S))
        self._on_roster()

    def _may_have(self, model: str) -> bool:
        return not self.roster.with_lane("engine") or self.roster.has(model)

    async def lacks(self, plan: EngineJob) -> bool:
        """Whether nodes have the model, but none on which the job fits."""
        if not self.roster.with_lane("engine"):
            return False
        return not self.roster.has_fitting(await self._placement.need(plan))

    def _wake_lane(self, lane: Lane) -> None:
        if (runner := self._lanes().get(lane)) is not None:
            runner.wake()

    def publish_queue_change(self) -> None:
        """The queue was paused, resumed or reordered by this process."""
        self.messenger.send(QueueChanged())

    def _on_queue_changed(self) -> None:
        for lane in self._lanes().values():
            lane.wake()
        self._on_queue()

    # ---- reports ---------------------------------------------------------------------------------

    def _contents(self) -> Node:
        """The report without what changes with each job."""
        return replace(self._node(), jobs=(), costs="")

    async def _run_reports(self) -> None:
        while True:
            pause_s = min(LOOK_S, self.options.report_s) * _jitter()
            for _ in range(max(1, round(self.options.report_s / pause_s))):
                await asyncio.sleep(pause_s)
                if self._contents() != self._reported:
                    break
            try:
                await self._announce()
            except Exception as error:
                if self._contact_since is not None:
                    log.warning("the job store does not answer: %s", error)
                self._contact_since = None

    async def _announce(self) -> None:
        self._reported = self._contents()
        is_asked = await self._store.announce(self._node())
        await self.refresh()
        if self._contact_since is None:
            self._contact_since = asyncio.get_running_loop().time()
        if is_asked != self._is_asked_to_drain:
            self._is_asked_to_drain = is_asked
            log.info("draining: the operator has asked for it" if is_asked else "taking jobs again")
            self._drain_lanes()
        self._placement.tick()
        if self.options.kind == "gateway" and self.roster.with_lane("engine") and not self._is_bringing:
            self._is_bringing = True
            self.messenger.spawn(self._bring())
        for lane in self._lanes().values():  # a notification may have been lost
            lane.wake()

    async def _bring(self) -> None:
        try:
            await self._bring_missing()
        except GatewayError as error:
            log.warning("a model that jobs wait for cannot be brought: %s", error)
        finally:
            self._is_bringing = False

    def _drain_lanes(self) -> None:
        for lane in self._lanes().values():
            lane.drain(self.is_draining)

    # ---- what others have left -------------------------------------------------------------------

    async def _run_reaps(self) -> None:
        while True:
            await asyncio.sleep(self.options.lease_s / 3 * _jitter())
            if self._has_steady_contact():
                try:
                    await self._reap()
                except Exception as error:
                    log.warning("jobs of other nodes could not be looked at: %s", error)

    async def _reap(self) -> None:
        for job in await self._store.reap():
            log.warning("its node is silent; the job waits again", extra={"job": job.id})
            with suppress(StorageFault, OSError):  # what is left is small, and counts for the quota
                await self._sweep(job)
        for job in await self._store.end_abandoned(self.options.gateway_grace_s):
            log.warning("its gateway is gone; the job was cancelled", extra={"job": job.id})

    def _has_steady_contact(self) -> bool:
        """Whether the store has answered for the time of a lease: after it was away, others must have been able to
        renew theirs.
        """
        now = asyncio.get_running_loop().time()
        return self._contact_since is not None and now - self._contact_since >= self.options.lease_s


def _jitter() -> float:
    """A factor, so that processes which started together do not act at the same moments."""
    return random.uniform(0.8, 1.2)
