"""The filing of a drawn image: from the spool to the output folder, and into its job's row. Knows no engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from engine.protocol import Drawn, Failed, PromptRead
from gateway.disk import fault_of
from gateway.errors import StorageFault
from gateway.images.output import Note, OutputFolder
from gateway.images.provenance import Signature
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import JobEvent
from gateway.store.base import JobStore, Lease

log = logging.getLogger("gateway.lane")

Filed = Failed | StorageFault | None
"""Why an image could not be filed: a failure of the job, or a fault of a place; None where it was filed."""


class Filing:
    """Encodes the images of one job and records them in the job's row, in order, while the next one is drawn."""

    def __init__(self, store: JobStore, output: OutputFolder, spool: Path, lease: Lease) -> None:
        self._store = store
        self._output = output
        self._spool = spool
        self._lease = lease
        self._last: asyncio.Task[Filed] | None = None

    def add(self, fact: Drawn | PromptRead) -> None:
        """File an image, or record how a prompt was read, after what was added before."""
        write = self._file(self._last, fact) if isinstance(fact, Drawn) else self._note(self._last, fact)
        self._last = asyncio.create_task(write)

    @property
    def has_fault(self) -> bool:
        """Whether a place is at fault, so that further images could not be filed either."""
        return self._last is not None and self._last.done() and isinstance(self._last.result(), StorageFault)

    async def finished(self) -> Filed:
        """Wait until all that was added is on disk; why that failed, if it did. Survives a cancelled caller."""
        return None if self._last is None else await asyncio.shield(self._last)

    async def _file(self, earlier: asyncio.Task[Filed] | None, drawn: Drawn) -> Filed:
        """Encode one image, write it to disk, then record it in the job's row after `earlier`; never raises."""
        job = self._lease.job
        name = f"{job.id}.{job.attempt}.{drawn.image}.png"
        failure: Filed = None
        event: JobEvent | None = None
        try:
            signature = Signature.of(job.plan, drawn.image, drawn.seed)
            note = await asyncio.to_thread(self._keep, self._spool / drawn.spool, name, signature)
            failure = await earlier if earlier is not None else None
            if failure is None:
                event = await self._store.record(self._lease, _done(drawn, name, note))
        except Exception as error:
            if (failure := fault_of(error)) is None:
                log.exception("a picture could not be filed", extra={"job": job.id})
                failure = Failed(code="internal_error", message="The picture could not be filed.")
        if event is None:
            with contextlib.suppress(OSError, StorageFault):
                await asyncio.to_thread(self._output.remove, name)
        return failure

    async def _note(self, earlier: asyncio.Task[Filed] | None, reading: PromptRead) -> Filed:
        """Record in the job's row, after `earlier`, how a prompt was read; never raises."""
        failure = await earlier if earlier is not None else None
        try:
            if failure is None:
                await self._store.record(self._lease, reading)
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
