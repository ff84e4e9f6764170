"""Placement: which waiting jobs this node of a fleet claims, by the models on its disk and its memory.

What each waiting job needs is computed once, in a thread; until then it is held, so that no job begins where it cannot
run. Knows the store, the library and the roster; no engine, no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from engine.catalog import ModelSpec
from engine.protocol import Generate, Load, input_name
from gateway.errors import ModelNotFound, ModelNotServed
from gateway.fleet.roster import Need, Roster
from gateway.jobs.job import Job, JobEvent, Plans, State
from gateway.jobs.plans import Download, EngineJob, Lane, Ocr, lane_of
from gateway.models.library import Library
from gateway.models.lora_repositories import LORA
from gateway.residency.admission import Admission
from gateway.store.base import JobStore

log = logging.getLogger("gateway.fleet")

PLACED: tuple[Lane, ...] = ("engine", "network")
READ_AT_ONCE = 200
MISSING_S = 30.0
"""Seconds after which a job fails whose model no node has and no download brings: a node may have just got it."""
FILES_EVERY_S = 30.0
OWN_MOST = 100_000
KNOWN_MOST = 1000
ANY_IMAGE = {"prompt": "", "negative_prompt": None, "seeds": (), "subseeds": ()}


class Placement:
    """Placement of one process, which runs `lanes`. `wake` says that a lane may claim more; `brings` whether a download
    brings a model or one of some LoRAs, `is_set_aside` whether the model in a folder is in quarantine.
    """

    def __init__(
        self,
        store: JobStore,
        library: Library,
        admission: Admission,
        roster: Roster,
        lanes: Collection[Lane],
        *,
        wake: Callable[[Lane], None],
        brings: Callable[[str, Collection[str]], bool],
        is_set_aside: Callable[[Path], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._library = library
        self._admission = admission
        self._roster = roster
        self._lanes = tuple(lane for lane in PLACED if lane in lanes)
        self._wake = wake
        self._brings = brings
        self._is_set_aside = is_set_aside
        self._clock = clock
        self._needs: dict[str, tuple[Lane, Need]] = {}
        self._known: dict[Plans, Need] = {}
        """The needs of recent plans, without what they do not depend on."""
        self._unread: dict[str, Plans | None] = {}
        """Waiting jobs whose need is not known yet; None: nor is their plan."""
        self._held: dict[Lane, set[str]] = {lane: set() for lane in PLACED}
        self._own: OrderedDict[str, None] = OrderedDict()
        """Jobs that this node may claim, or has just claimed; bounded."""
        self._missing_since: dict[Need, float] = {}
        self._news = asyncio.Event()
        self.models: tuple[str, ...] = ()
        """The models on this disk."""
        self.loras: tuple[str, ...] = ()
        self.files: tuple[str, ...] = ()
        """VAE files and textual inversions on this disk, by their names among the inputs of a run."""
        self._files_due = 0.0

    def held_jobs(self, lane: Lane) -> frozenset[str]:
        """Waiting jobs that this node does not claim."""
        return frozenset(self._held[lane])

    async def start(self) -> None:
        """Look at the files, and at the first waiting jobs; `run` does the others."""
        if not self._lanes:
            return
        await self.look()
        for lane in self._lanes:
            for waiting in self._store.order(lane):
                self._unread.setdefault(waiting.id, None)
                self._held[lane].add(waiting.id)
        await self._read_next()
        self._news.set()

    async def look(self) -> None:
        """Look at the models, LoRAs and further files on this disk."""
        self.models, self.loras, self.files = await asyncio.to_thread(self._on_disk)
        self._files_due = self._clock() + FILES_EVERY_S
        self._known.clear()  # sizes may be others

    def _on_disk(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        self._library.refresh()
        models = tuple(spec.name for spec in self._library.specs if self._is_usable(spec))
        loras = self._library.loras.all()
        files = (
            *(input_name("vae", one.name) for one in self._library.vaes.all()),
            *(input_name("embedding", one.name) for one in self._library.embeddings.all()),
        )
        return models, tuple(lora.name for lora in loras if lora.file is not None and lora.trouble is None), files

    def _is_usable(self, spec: ModelSpec) -> bool:
        folder = self._library.find_folder(spec)
        return folder is not None and self._library.on_disk(spec) and not self._is_set_aside(folder)

    def on_event(self, job: Job, event: JobEvent) -> None:
        """Note a job that waits, and forget one that does not; after a download there may be new files."""
        lane = lane_of(job.plan)
        if isinstance(job.plan, Download) and job.state is State.SUCCEEDED and self._lanes:
            self._files_due = 0.0
            self._news.set()
        if lane not in self._lanes:
            return
        if job.state is State.QUEUED:
            need = self._known.get(_kind_of(job.plan)) if lane == "engine" else None
            if need is not None:
                self._needs[job.id] = lane, need
                return self._set(job.id, lane, self._decide(lane, need))
            self._unread[job.id] = job.plan
            self._held[lane].add(job.id)
            self._news.set()
        else:
            self._drop(job.id)
            if job.state is not State.RUNNING:
                self._own.pop(job.id, None)

    def forget(self, job_id: str) -> None:
        """Forget a job whose record was set aside."""
        self._drop(job_id)
        self._own.pop(job_id, None)

    def _drop(self, job_id: str) -> None:
        """Forget a job that does not wait."""
        self._needs.pop(job_id, None)
        self._unread.pop(job_id, None)
        for held in self._held.values():
            held.discard(job_id)

    async def is_own(self, job_id: str, plan: Plans) -> bool:
        """Whether this node may claim a job of this plan now."""
        if lane_of(plan) not in PLACED:
            return True
        is_own = self._decide(lane_of(plan), await self.need(plan))
        if is_own:
            self._note_own(job_id)
        return is_own

    async def accepts(self, job: Job) -> bool:
        """Whether this node runs a job that it has claimed: it was decided before, or is now.

        The queue in memory may be ahead of the events by which jobs are placed.
        """
        return job.id in self._own or await self.is_own(job.id, job.plan)

    def _note_own(self, job_id: str) -> None:
        self._own[job_id] = None
        while len(self._own) > OWN_MOST:
            self._own.popitem(last=False)

    async def need(self, plan: Plans) -> Need:
        """What a job of this plan needs."""
        need = self._known.get(_kind_of(plan))
        return await asyncio.to_thread(self._need, plan) if need is None else need

    async def run(self) -> None:
        """Keep up with the queue and with the files on the disk."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                if self._clock() >= self._files_due:
                    await self.look()
                    self.decide()
                while self._unread:
                    await self._read_next()
            except Exception:
                log.exception("waiting jobs could not be placed")
                await asyncio.sleep(1.0)
                self._news.set()

    def tick(self) -> None:
        """The roster is new: decide again."""
        self.decide()
        if self._lanes and (self._clock() >= self._files_due or self._unread):
            self._news.set()

    def decide(self) -> None:
        """Decide for each waiting job whether this node claims it."""
        own: dict[tuple[Lane, Need], bool] = {}
        for job_id, placed in self._needs.items():
            if placed not in own:
                own[placed] = self._decide(*placed)
            self._set(job_id, placed[0], own[placed])
        needs = {need for _, need in own}
        self._missing_since = {need: since for need, since in self._missing_since.items() if need in needs}

    def _set(self, job_id: str, lane: Lane, is_own: bool) -> None:
        if not is_own:
            self._held[lane].add(job_id)
            self._own.pop(job_id, None)
            return
        self._note_own(job_id)
        if job_id in self._held[lane]:
            self._held[lane].discard(job_id)
            self._wake(lane)

    def _decide(self, lane: Lane, need: Need) -> bool:
        if lane == "network":
            return self._roster.is_own_download(need)
        return self._roster.is_own(need, may_fail=self._is_missing(need))

    def _is_missing(self, need: Need) -> bool:
        """Whether no node has had what a job needs, and nothing brings it, for `MISSING_S`."""
        if not self._roster.is_nowhere(need) or self._brings(need.model, need.loras):
            self._missing_since.pop(need, None)
            return False
        return self._clock() - self._missing_since.setdefault(need, self._clock()) > MISSING_S

    async def _read_next(self) -> None:
        """Compute what the next waiting jobs need, in the order of their submission."""
        ids = list(self._unread)[:READ_AT_ONCE]
        plans = {job_id: plan for job_id in ids if (plan := self._unread[job_id]) is not None}
        if unknown := [job_id for job_id in ids if job_id not in plans]:
            plans |= {one.job_id: one.plan for one in await self._store.plans(unknown)}
        needs = await asyncio.to_thread(lambda: {job_id: self._need(plan) for job_id, plan in plans.items()})
        for job_id in ids:
            if job_id not in self._unread:  # it waits no longer
                continue
            del self._unread[job_id]
            if job_id in needs:
                lane = lane_of(plans[job_id])
                need = needs[job_id] if lane == "engine" else self._of_download(plans[job_id], needs[job_id])
                self._needs[job_id] = lane, need
                self._set(job_id, lane, self._decide(lane, need))

    def _of_download(self, plan: Plans, need: Need) -> Need:
        """The need of a download: that of the smallest job which waits for it."""
        lora = plan.model.removeprefix(LORA)
        waiting = [
            replace(other, loras=frozenset())
            for lane, other in self._needs.values()
            if lane == "engine" and (other.model == plan.model or lora in other.loras)
        ]
        return min(waiting, key=lambda other: other.memory_bytes, default=need)

    def _need(self, plan: Plans) -> Need:
        """What a plan needs of a node. Blocks."""
        if isinstance(plan, Ocr):
            return Need(plan.model)
        try:
            spec = self._library.find(plan.model)
        except (ModelNotFound, ModelNotServed):  # a LoRA's download, or another node's own model
            return Need(plan.model)
        drawn: EngineJob = Load(model=spec.name, quantize=spec.quantize) if isinstance(plan, Download) else plan
        loras = frozenset(lora.name for lora in plan.loras) if isinstance(plan, Generate) else frozenset[str]()
        need = Need(spec.name, loras, self._admission.footprint(drawn, spec).peak)
        if isinstance(plan, Generate) and (sampling := plan.sampling) is not None:
            vaes = () if sampling.vae is None else (input_name("vae", sampling.vae),)
            files = frozenset((*vaes, *(input_name("embedding", name) for name in sampling.embeddings)))
            refiner = None if sampling.refiner is None else sampling.refiner.model
            need = replace(need, refiner=refiner, files=files)
        if drawn is plan and len(self._known) < KNOWN_MOST:
            self._known[_kind_of(plan)] = need
        return need


def _kind_of(plan: Plans) -> Plans:
    """The plan without what its need does not depend on."""
    return plan.model_copy(update=ANY_IMAGE) if isinstance(plan, Generate) else plan
