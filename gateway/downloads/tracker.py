"""Downloads of models and LoRAs that jobs wait for: started, joined, published and ended.

A job for a model that is not here waits in the queue like any other, but is not claimed; jobs of other models go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from engine.catalog import ModelSpec
from engine.protocol import Failed, Generate, Lora
from gateway.access.rights import GATEWAY, Rights
from gateway.downloads.holds import Hold, LoraHolds, MissingLoras
from gateway.downloads.lists import bring_lists
from gateway.downloads.live import LiveDownloads
from gateway.downloads.progress import DownloadProgress
from gateway.downloads.sources import Sources, remove, repos_of, sources_of
from gateway.downloads.status import not_yours, on_its_way
from gateway.downloads.wire import offline_sentence
from gateway.errors import Forbidden, JobDamaged, ModelIsDownloading, ModelKept, ModelNotFound, ModelNotOnDisk
from gateway.events.bus import EventBus
from gateway.events.positions import QueuePositions
from gateway.forecast import Forecaster
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.job import Job, JobEvent
from gateway.jobs.origin import Origin
from gateway.jobs.plans import Download, Plan
from gateway.models import folders
from gateway.models.library import Library
from gateway.models.lora_repositories import LORA
from gateway.store.base import Bounds, JobStore

log = logging.getLogger("gateway.downloads")

GATEWAY_ORIGIN = Origin(owner=GATEWAY, protocol="gateway", attached=False)
"""The origin of downloads that a job needs: they belong to everybody and count against no owner's share."""
RETRY_AFTER_S = 60
READ_AT_ONCE = 500
"""Plans of waiting jobs that are read in one transaction at the start."""


class Downloads:
    """Belongs to one event loop. `wake` says that a model is there now: the engine's lane may claim more."""

    def __init__(
        self,
        *,
        store: JobStore,
        bus: EventBus,
        library: Library,
        forecaster: Forecaster,
        positions: QueuePositions,
        auto: bool,
        rights: Rights,
        fall_back: tuple[str, ...] = (),
        wake: Callable[[], None],
        elsewhere: Callable[[str], Awaitable[bool]] | None = None,
        has_lora: Callable[[str, str], bool] = lambda model, lora: False,
        is_on_disk: Callable[[ModelSpec], bool] | None = None,
        is_worker: bool = False,
    ) -> None:
        """`elsewhere`: whether a node that draws has a model; None: there are no others. `has_lora`: whether one has a
        model and this LoRA. `is_on_disk`: whether a model is on this disk, for jobs that run here. `is_worker`: the
        gateways start all downloads.
        """
        self._has_lora = has_lora
        self._is_worker = is_worker
        self._elsewhere = elsewhere
        self._is_on_disk = is_on_disk or library.on_disk
        self._store = store
        self._bus = bus
        self._library = library
        self._forecaster = forecaster
        self._positions = positions
        self._auto = auto
        self._fall_back = fall_back
        self._rights = rights
        self._wake = wake
        self._missing: dict[str, Sources] = {}
        """Models that a job may wait for and that were not here when we last looked."""
        self._missing_since: dict[str, float] = {}
        """When such a model was first missed, in the loop's seconds."""
        self._held = LoraHolds()
        """Jobs that wait for LoRAs."""
        self._live = LiveDownloads()
        self.progress = DownloadProgress(store, forecaster, self._live, self._missing, self._held)
        self._failures: dict[Sources, str] = {}
        """Why a download failed for which no job waited, until the next request is told."""
        self._starting = asyncio.Lock()
        bus.listen(self.on_event)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what an earlier process left: downloads, and jobs that wait for one; have LoRA collections listed."""
        if self._auto and not folders.is_offline():
            lists = bring_lists(self._library.models_dir, self._library.loras.unlisted, fall_back=self._fall_back)
            self._spawn(lists)
        for waiting in self._store.order("network"):
            with suppress(JobDamaged):
                plan = (await self._store.get(waiting.id)).plan
                if isinstance(plan, Download):
                    self._live.wait(waiting.id, plan)
        if self._is_worker:
            return
        drawn: list[tuple[str, Generate]] = []
        if self._auto and self._library.loras.are_on_hub:  # else nobody waits for one: a long queue need not be read
            ids = [job.id for job in self._store.order("engine")]
            for at in range(0, len(ids), READ_AT_ONCE):
                plans = await self._store.plans(ids[at : at + READ_AT_ONCE])
                drawn += [(one.job_id, one.plan) for one in plans if isinstance(one.plan, Generate) and one.plan.loras]
        lacked = await self._missing_loras([plan for _, plan in drawn])
        for (job_id, _), wanted in zip(drawn, lacked, strict=True):
            self._held.hold(job_id, wanted)
            await self._bring_loras(wanted, GATEWAY_ORIGIN.owner)
        if self._elsewhere is None:
            await self.bring_missing()

    async def bring_missing(self, after_s: float = 0.0) -> None:
        """Start the downloads of models that jobs wait for and that are nowhere, where none brings them yet.

        Only of those that were missing for `after_s`: the process that took a job starts its download itself, and a
        node reports a model a little after its download.
        """
        now, since = asyncio.get_running_loop().time(), self._missing_since
        self._missing_since = {model: since.get(model, now) for model in self._store.models("engine")}
        for model in list(self._missing_since):
            try:
                spec = self._library.find(model)
            except ModelNotFound:
                continue
            if await self._is_there(spec):
                self._missing.pop(model, None)
                self._missing_since.pop(model, None)
            elif self._may_come(spec):
                self._missing[model] = sources_of(spec)
                if now - self._missing_since.get(model, now) >= after_s:
                    await self.bring(spec, GATEWAY_ORIGIN.owner)

    async def _is_there(self, spec: ModelSpec) -> bool:
        """Whether jobs of this model can run, here or on another node."""
        if self._elsewhere is not None and await self._elsewhere(spec.name):
            return True
        return await asyncio.to_thread(self._is_on_disk, spec)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- who needs what --------------------------------------------------------------------------

    async def need(self, spec: ModelSpec, owner: str) -> bool:
        """Before a job of this model is stored; whether the model must come first, which is `bring`'s part afterwards.

        Raises: ModelNotServed, ModelNotOnDisk where it cannot come; Forbidden where this owner may not start that.
        """
        if await self._is_there(spec):
            if self._missing.pop(spec.name, None) is not None:
                self._wake()
            return False
        return self.must_come(spec, owner)

    def must_come(self, spec: ModelSpec, owner: str) -> bool:
        """As `need`, for a model that is not where its job fits."""
        if not self._may_come(spec):
            self._library.further_folders(spec)
            raise ModelNotOnDisk(param="model")
        if folders.is_offline():
            raise ModelNotOnDisk(offline_sentence(spec.name), param="model")
        self._check_may_bring(spec.name, sources_of(spec), owner)
        self._missing[spec.name] = sources_of(spec)
        return True

    async def refuse_until_here(self, spec: ModelSpec | None, loras: MissingLoras, owner: str) -> None:
        """For a client that does not wait: the downloads are begun, where any is needed.

        Raises: ModelIsDownloading; ModelNotOnDisk with the reason where the last one failed; Forbidden.
        """
        for _, lora in loras.loras:
            if (reason := self._failures.pop((lora.files,), None)) is not None:
                raise ModelNotOnDisk(reason, param="loras")
        await self._bring_loras(loras, owner)
        if spec is not None:
            await self._refuse_until_model_is_here(spec, owner)
        if loras.loras:
            names = " and ".join(name for name, _ in loras.loras)
            raise ModelIsDownloading(
                f"LoRA {names} is being downloaded; ask again in a minute.",
                param="loras",
                retry_after_s=RETRY_AFTER_S,
            )

    async def _refuse_until_model_is_here(self, spec: ModelSpec, owner: str) -> None:
        if (reason := self._failures.pop(sources_of(spec), None)) is not None:
            raise ModelNotOnDisk(reason, param="model")
        await self.bring(spec, owner)
        raise ModelIsDownloading(
            on_its_way(spec.name, self.progress.of(spec)), param="model", retry_after_s=RETRY_AFTER_S
        )

    async def bring(self, spec: ModelSpec, owner: str, origin: Origin = GATEWAY_ORIGIN) -> Job:
        """The download of this model, started or joined. Raises: Forbidden, QueueFull, StorageFull."""
        return await self._bring(spec.name, sources_of(spec), owner, origin)

    async def need_loras(self, plan: Plan, owner: str) -> MissingLoras:
        """Before a job is stored: which of its LoRAs are on the hub only and must come first; none where none may.

        Raises: ModelNotOnDisk where they cannot come; Forbidden where this owner may not start that.
        """
        if not isinstance(plan, Generate):
            return MissingLoras(plan.model, ())
        (wanted,) = await self._missing_loras([plan])
        if wanted.loras and folders.is_offline():
            raise ModelNotOnDisk(offline_sentence(f"LoRA {wanted.loras[0][0]}"), param="loras")
        for name, lora in wanted.loras:
            self._check_may_bring(f"{LORA}{name}", (lora.files,), owner)
        return wanted

    @contextmanager
    def hold(self, job_id: str, loras: MissingLoras) -> Iterator[Hold]:
        """A job that is stored within this context is not claimed before its LoRAs are here."""
        hold = Hold(job_id)
        self._held.hold(job_id, loras)
        try:
            yield hold
        finally:
            if not hold.is_kept:
                self._held.release(job_id)

    async def start_for(self, job: Job, spec: ModelSpec | None, loras: MissingLoras, owner: str) -> Job:
        """Start or join the downloads that a stored job waits for; the job as it is then."""
        try:
            if spec is not None:
                await self.bring(spec, owner)
            await self._bring_loras(loras, owner)
        except Forbidden as refused:  # the download it would have joined was stopped since
            await self._store.refuse([job.id], Failed(code="model_missing", message=refused.message))
            return await self._store.get(job.id)
        return job

    async def _missing_loras(self, plans: Sequence[Generate]) -> list[MissingLoras]:
        """Of each plan the LoRAs that are not here and may come."""
        names = {lora.name for plan in plans for lora in plan.loras} if self._auto else None
        missing = dict(await self._library.loras.off_loop(self._library.loras.missing, names)) if names else {}
        return [
            MissingLoras(
                plan.model,
                tuple(
                    (lora.name, missing[lora.name])
                    for lora in plan.loras
                    if lora.name in missing and not self._has_lora(plan.model, lora.name)
                ),
            )
            for plan in plans
        ]

    async def _bring_loras(self, wanted: MissingLoras, owner: str) -> None:
        for name, lora in wanted.loras:
            await self._bring(f"{LORA}{name}", (lora.files,), owner, GATEWAY_ORIGIN)

    async def _bring(self, model: str, sources: Sources, owner: str, origin: Origin) -> Job:
        """`owner` is on whose account the download is started; `origin` is whose it will be."""
        async with self._starting:
            if (joined := self._live.joinable(sources)) is not None:
                with suppress(JobDamaged):
                    return await self._store.get(joined)
            self._check_may_bring(model, sources, owner)
            plan = Download(model=model, sources=sources)
            bounds = Bounds(waiting=1_000_000)  # who waits for it was counted already
            job = (await asyncio.shield(self._store.submit(origin.new_job(plan, ""), bounds))).job
            self._live.add(job.id, plan)
            return job

    def _check_may_bring(self, name: str, sources: Sources, owner: str) -> None:
        """Raises: Forbidden where the download would have to be started, and this owner may not."""
        if self._live.joinable(sources) is None:
            message, param = not_yours(name)
            self._rights.check(owner, "pull", message=message, param=param)

    def claimable(self) -> frozenset[str] | None:
        """Models whose jobs may run now; None means all."""
        if not self._missing:
            return None
        return frozenset(self._store.models("engine") - self._missing.keys())

    def held_jobs(self) -> frozenset[str]:
        """Jobs, by id, that may not run yet: a LoRA of theirs is on its way."""
        return self._held.ids

    def _may_come(self, spec: ModelSpec) -> bool:
        if spec.repo is None or spec.unavailable is not None:
            return False
        return self._auto or self._live.brings(sources_of(spec))

    # ---- what happens ----------------------------------------------------------------------------

    def on_event(self, job: Job, event: JobEvent) -> None:
        """A state event of any job, in the order in which they were stored."""
        plan = job.plan
        if not isinstance(plan, Download):
            if job.state is not None and job.state.terminal:
                self._held.release(job.id)
            return
        match event.fact.kind:
            case "queued" | "requeued":
                self._live.wait(job.id, plan)
            case "started":
                self._live.run(job.id)
            case "cancel_requested":
                self._live.cancel(job.id)
            case "succeeded":
                self._live.end(job.id)
                self._failures.pop(plan.sources, None)
                self._missing_since.clear()
                self._spawn(self._arrived(self._held.came(plan.sources)))
            case "failed":
                self._live.end(job.id)
                reason = job.failure.message if job.failure else "The download failed."
                if not self._give_up(plan, reason) and job.owner == GATEWAY_ORIGIN.owner:
                    self._failures[plan.sources] = reason
            case "cancelled":
                self._live.end(job.id)
                self._give_up(plan, f"The download of {plan.model} was cancelled.")
        self._positions.invalidate()

    def forget(self, job_id: str) -> None:
        """The record of a job was set aside; jobs that waited for it as a download fail."""
        self._held.release(job_id)
        if (plan := self._live.end(job_id)) is not None:
            self._give_up(plan, f"The record of the download of {plan.model} is damaged; ask for it again.")

    def publish_of(self, job_id: str, fact: ModelDownloading) -> None:
        """As `publish`, for a download that runs on another node."""
        if (plan := self._live.plan(job_id)) is not None:
            self.publish(plan, fact)

    def brings(self, model: str, loras: Collection[str] = ()) -> bool:
        """Whether a download brings this model, or one of these LoRAs."""
        names = {f"{LORA}{name}" for name in loras}
        if any(plan.model in names for _, plan in self._live):
            return True
        try:
            return self._live.brings(sources_of(self._library.find(model)))
        except ModelNotFound:
            return False

    def publish(self, plan: Download, fact: ModelDownloading) -> None:
        """Publish how far a download is, for the jobs that wait for it."""
        self._live.set_fact(plan.sources, fact)
        self._positions.invalidate()
        if not self._bus.is_heard:
            return
        held = set(self._held.of(plan.sources))
        models = {model for model, sources in self._missing.items() if sources == plan.sources}
        line = self._store.order("engine")
        for waiting in line:
            needs_model = waiting.model in models
            if (needs_model or waiting.id in held) and self._bus.hears(waiting.id, waiting.owner):
                expected = self._forecaster.of(waiting.id, line)
                told = fact.model_copy(update={"model": waiting.model}) if needs_model else fact
                self._bus.publish_waiting(waiting.id, told, None if expected is None else expected.expected_s)

    async def _arrived(self, whole: Iterable[tuple[str, MissingLoras]]) -> None:
        """`whole`: jobs whose LoRAs are all here now; whether they fit is known only now."""
        for job_id, wanted in whole:
            if (trouble := await asyncio.to_thread(self._trouble, wanted)) is not None:
                await self._store.refuse([job_id], Failed(code="bad_input", message=trouble))
            self._held.release(job_id)
        for model in list(self._missing):
            if await self._is_there(self._library.find(model)):
                self._missing.pop(model, None)
        self._wake()

    def _trouble(self, wanted: MissingLoras) -> str | None:
        """Why the downloaded LoRAs cannot be applied to the model; None where they can. Blocks."""
        try:
            spec = self._library.find(wanted.model)
        except ModelNotFound:
            return None  # its lane says so
        known = self._library.loras.known([Lora(name=name) for name, _ in wanted.loras], spec)
        return next((lora.trouble for lora in known.values() if lora.trouble), None)

    def _give_up(self, plan: Download, message: str) -> bool:
        """The jobs that waited for it fail with its reason, unless another brings the same; False: none waited."""
        if self._live.brings(plan.sources):
            return True
        models = {model for model, sources in self._missing.items() if sources == plan.sources}
        waited = [waiting.id for waiting in self._store.order("engine") if waiting.model in models]
        waited += self._held.of(plan.sources)
        self._spawn(self._refuse(waited, message))
        return bool(waited)

    async def _refuse(self, job_ids: list[str], message: str) -> None:
        await self._store.refuse(job_ids, Failed(code="model_missing", message=message))

    async def remove(self, spec: ModelSpec) -> None:
        """Remove what was downloaded of a model, in part or whole. Raises: ModelNotOnDisk, ModelKept."""
        for _, plan in self._live:
            if self.share(plan.model, spec.name):
                raise ModelKept(f"{plan.model} is being downloaded; cancel that first.")
        for model in self._store.models("engine"):
            if self.share(model, spec.name):
                raise ModelKept(f"Jobs wait for {model}, which has files of the same repository.")
        await asyncio.to_thread(remove, self._library, spec)

    def share(self, one: str, other: str) -> bool:
        """Whether two models are drawn with files of the same repository."""
        return bool(repos_of(self._library, one) & repos_of(self._library, other))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
