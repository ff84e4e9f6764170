"""The filing of a drawn image: from the spool to the output folder, and into its job's row. Knows no engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.protocol import Drawn, Failed, Generate, PromptRead
from gateway.disk import fault_of
from gateway.errors import StorageFault
from gateway.images.output import Note, OutputFolder
from gateway.images.provenance import Signature
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import JobEvent, StateFacts
from gateway.jobs.sampling_files import FileHashes
from gateway.store.base import Lease

log = logging.getLogger("gateway.lane")

Record = Callable[[Lease, StateFacts], Awaitable[JobEvent | None]]
"""Records a fact of a running job, as `JobStore.record` does."""
HashesOf = Callable[[Generate], FileHashes]
Filed = Failed | StorageFault | None
"""Why an image could not be filed: a failure of the job, or a fault of a place; None where it was filed."""


class Filing:
    """Encodes the images of one job and records them in the job's row, in order, while the next one is drawn.

    The last of `count` images is recorded together with the job's outcome, in one transaction: `unrecorded` has it.
    `hashes_of` reads the hashes of the files of a plan of Stable Diffusion, on a thread.
    """

    def __init__(
        self, record: Record, output: OutputFolder, spool: Path, lease: Lease, count: int, hashes_of: HashesOf
    ) -> None:
        self._hashes_of = hashes_of
        self._record_fact = record
        self._output = output
        self._spool = spool
        self._lease = lease
        self._count = count
        self._last: asyncio.Task[Filed] | None = None
        self.unrecorded: ImageDone | None = None
        """The last image, which is on disk."""

    def add(self, fact: Drawn | PromptRead) -> None:
        """File an image, or record how a prompt was read, after what was added before."""
        write = self._file(self._last, fact) if isinstance(fact, Drawn) else self._note(self._last, fact)
        self._last = asyncio.create_task(write)

    @property
    def has_fault(self) -> bool:
        """Whether a place is at fault, so that further images could not be filed either."""
        return self._last is not None and self._last.done() and isinstance(self._last.result(), StorageFault)

    async def written(self) -> Filed:
        """Wait until all that was added is on disk; why that failed, if it did. Survives a cancelled caller."""
        return None if self._last is None else await asyncio.shield(self._last)

    async def recorded(self) -> Filed:
        """Like `written`, with the last image recorded too: its job does not end now."""
        return await asyncio.shield(asyncio.ensure_future(self._record_last()))

    async def _record_last(self) -> Filed:
        failure = await self.written()
        done, self.unrecorded = self.unrecorded, None
        return failure if done is None else await self._record(done)

    async def remove_unrecorded(self) -> None:
        """Remove the file of the last image: its job is gone."""
        if self.unrecorded is not None:
            await self._remove(self.unrecorded.file)

    async def _file(self, earlier: asyncio.Task[Filed] | None, drawn: Drawn) -> Filed:
        """Encode one image, write it to disk, then record it in the job's row after `earlier`; never raises."""
        job = self._lease.job
        name = f"{job.id}.{job.attempt}.{drawn.image}.png"
        failure: Filed = None
        done: ImageDone | None = None
        try:
            hashes = FileHashes()
            if isinstance(job.plan, Generate) and job.plan.sampling is not None:
                hashes = await self._output.run(self._hashes_of, job.plan)
            signature = Signature.of(job.plan, drawn.image, drawn.seed, hashes)
            done = _done(drawn, name, await self._output.run(self._keep, self._spool / drawn.spool, name, signature))
        except Exception as error:
            failure = self._failure_of(error)
        failure = (await earlier if earlier is not None else None) or failure
        if done is None or failure is not None:
            await self._remove(name)
            return failure
        if drawn.image == self._count - 1:
            self.unrecorded = done
            return None
        return await self._record(done)

    async def _record(self, done: ImageDone) -> Filed:
        """Record an image in the job's row, or remove its file; never raises."""
        failure: Filed = None
        event: JobEvent | None = None
        try:
            event = await self._record_fact(self._lease, done)
        except Exception as error:
            failure = self._failure_of(error)
        if event is None:
            await self._remove(done.file)
        return failure

    def _failure_of(self, error: Exception) -> Failed | StorageFault:
        if (fault := fault_of(error)) is not None:
            return fault
        log.error("a picture could not be filed", exc_info=error, extra={"job": self._lease.job.id})
        return Failed(code="internal_error", message="The picture could not be filed.")

    async def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError, StorageFault):
            await self._output.run(self._output.remove, name)

    async def _note(self, earlier: asyncio.Task[Filed] | None, reading: PromptRead) -> Filed:
        """Record in the job's row, after `earlier`, how a prompt was read; never raises."""
        failure = await earlier if earlier is not None else None
        try:
            if failure is None:
                await self._record_fact(self._lease, reading)
        except Exception as error:
            if (failure := fault_of(error)) is None:
                log.exception("the reading of a prompt could not be noted", extra={"job": self._lease.job.id})
        return failure

    def _keep(self, spooled: Path, name: str, signature: Signature | None) -> Note | None:
        """Store an image; returns the note on its file. Blocks. Raises: StorageFault."""
        self._output.keep(spooled, name, signature)
        return self._output.note_of(name)


def _done(drawn: Drawn, name: str, note: Note | None) -> ImageDone:
    return ImageDone(
        image=drawn.image,
        seed=drawn.seed,
        file=name,
        width_px=drawn.width_px,
        height_px=drawn.height_px,
        drawn_px=drawn.drawn_px,
        seconds=drawn.seconds,
        cut_short=drawn.cut_short,
        length_bytes=None if note is None else note.length_bytes,
        sha256=None if note is None else note.sha256,
    )
