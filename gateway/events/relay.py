"""Relay: progress of jobs that run here to the other processes of a fleet, and theirs to the local event bus.

State events need no relay, because every process gets them from the store. Knows the bus, the forecaster and the
messenger; no engine and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.protocol import Preview, StepDone
from gateway.events.bus import EventBus
from gateway.events.messenger import Messenger
from gateway.events.previews import Previews
from gateway.events.running import RunningJobs
from gateway.fleet.messages import JobPreview, JobProgress
from gateway.forecast import Forecaster
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.job import Job, JobEvent, ProgressFacts, State
from gateway.jobs.plans import part_count

log = logging.getLogger("gateway.fleet")

EVERY_S = 0.1
"""Seconds between two progress messages of one job."""
PREVIEW_EVERY_S = 1.0
FACTS_MOST = 16
"""Facts of one message: of steps the newest of each image, of others all, of too many the newest."""


@dataclass(slots=True)
class _Outbox:
    facts: list[ProgressFacts] = field(default_factory=list)
    expected_s: float | None = None

    def put(self, fact: ProgressFacts, expected_s: float | None) -> None:
        self.expected_s = expected_s
        self.facts = [old for old in self.facts if not _replaces(fact, old)][1 - FACTS_MOST :]
        self.facts.append(fact)


class Relay:
    """The relay of one process.

    `previews` is None where the processes share no files, `shows_previews` whether anyone could see one here;
    `on_download` gets how far the download of a job is that runs elsewhere.
    """

    def __init__(
        self,
        *,
        bus: EventBus,
        messenger: Messenger,
        running: RunningJobs,
        forecaster: Forecaster,
        previews: Previews | None,
        shows_previews: bool,
        on_download: Callable[[str, ModelDownloading], None],
    ) -> None:
        self._bus = bus
        self._messenger = messenger
        self._running = running
        self._forecaster = forecaster
        self._previews = previews
        self._shows_previews = shows_previews
        self._on_download = on_download
        self._outboxes: dict[str, _Outbox] = {}
        """Of the jobs whose progress is being sent."""
        self._newest: dict[str, Preview] = {}
        """Previews that are not sent yet, of the jobs whose previews are being sent."""
        self._unread: dict[str, JobPreview] = {}
        """Previews to be read, of the jobs whose previews are being read."""
        bus.listen(self.on_event)
        bus.listen_progress(self.on_progress)
        messenger.on(JobProgress, self._on_message)
        messenger.on(JobPreview, self._on_preview)

    # ---- state events ----------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Begin the progress of a running job."""
        self._bus.begin(job.id, part_count(job.plan), max(job.first_undrawn, len(job.pages)))

    def on_event(self, job: Job, event: JobEvent) -> None:
        """Begin and end the progress of a job, wherever it runs."""
        if event.fact.kind == "started":
            self.begin(job)
        elif job.state is not State.RUNNING:
            self._bus.end(job.id)
            if self._previews is not None:
                self._messenger.spawn(self._drop_previews(self._previews, job.id))

    # ---- progress of jobs that run here ----------------------------------------------------------

    def on_progress(self, job_id: str, fact: ProgressFacts, expected_s: float | None) -> None:
        """Send a progress fact to the other processes, together with those that come soon after it."""
        if isinstance(fact, Preview):
            if self._previews is None:
                return
            is_sending = job_id in self._newest
            self._newest[job_id] = fact
            if not is_sending:
                self._messenger.spawn(self._send_previews(self._previews, job_id))
            return
        outbox = self._outboxes.get(job_id)
        if outbox is None:
            outbox = self._outboxes[job_id] = _Outbox()
            self._messenger.spawn(self._send(job_id, outbox))
        outbox.put(fact, expected_s)

    async def _send(self, job_id: str, outbox: _Outbox) -> None:
        try:
            while outbox.facts and (attempt := self._running.attempt(job_id)) is not None:
                facts, outbox.facts = tuple(outbox.facts), []
                message = JobProgress(job=job_id, attempt=attempt, facts=facts, expected_s=outbox.expected_s)
                await self._messenger.post(message)
                await asyncio.sleep(EVERY_S)
        finally:
            del self._outboxes[job_id]

    async def _send_previews(self, previews: Previews, job_id: str) -> None:
        sent: Preview | None = None
        while (preview := self._newest[job_id]) is not sent and (attempt := self._running.attempt(job_id)) is not None:
            sent = preview
            try:
                address = await previews.put(job_id, attempt, preview.jpeg_base64)
            except Exception as error:
                log.debug("a preview could not be stored: %s", error, extra={"job": job_id})
            else:
                image, step = preview.image, preview.step
                message = JobPreview(job=job_id, attempt=attempt, image=image, step=step, address=address)
                await self._messenger.post(message)
            await asyncio.sleep(PREVIEW_EVERY_S)
        del self._newest[job_id]

    async def _drop_previews(self, previews: Previews, job_id: str) -> None:
        try:
            await previews.drop(job_id)
        except Exception as error:
            log.debug("previews could not be removed: %s", error, extra={"job": job_id})

    # ---- progress of jobs that run elsewhere -----------------------------------------------------

    def _on_message(self, message: JobProgress) -> None:
        for fact in message.facts:
            if isinstance(fact, ModelDownloading):
                self._on_download(message.job, fact)
            self._publish(message.job, message.attempt, fact, message.expected_s)

    def _publish(self, job_id: str, attempt: int, fact: ProgressFacts, expected_s: float | None) -> None:
        if (job := self._running.find(job_id, attempt)) is None:  # it has ended, or another attempt runs
            return
        if self._bus.progress(job_id) is None:
            self.begin(job)
        own_s = self._forecaster.on_fact(job_id, fact)
        self._bus.relay_progress(job_id, fact, own_s if expected_s is None else expected_s)

    def _on_preview(self, message: JobPreview) -> None:
        if not self._shows_previews or self._previews is None:
            return
        is_reading = message.job in self._unread
        self._unread[message.job] = message
        if not is_reading:
            self._messenger.spawn(self._read_previews(self._previews, message.job))

    async def _read_previews(self, previews: Previews, job_id: str) -> None:
        read: JobPreview | None = None
        while (newest := self._unread[job_id]) is not read:
            read = newest
            try:
                jpeg = await previews.get(newest.address)
            except Exception as error:
                log.debug("a preview could not be read: %s", error, extra={"job": job_id})
                continue
            if jpeg is not None:
                fact = Preview(image=newest.image, step=newest.step, jpeg_base64=jpeg)
                progress = self._bus.progress(job_id)
                expected_s = None if progress is None else progress.expected_s
                self._publish(job_id, newest.attempt, fact, expected_s)
        del self._unread[job_id]


def _replaces(fact: ProgressFacts, old: ProgressFacts) -> bool:
    """Whether nobody needs the earlier fact any more."""
    if isinstance(fact, StepDone) and isinstance(old, StepDone):
        return fact.image == old.image
    return isinstance(fact, ModelDownloading) and isinstance(old, ModelDownloading)
