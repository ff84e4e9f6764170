"""The filing of a drawn image: from the spool to the output folder, and into its job's row. Knows no engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from engine.protocol import Drawn, Failed, PromptRead
from gateway.disk import fault_of
from gateway.errors import StorageFault
from gateway.images.output import Note, Pictures
from gateway.images.provenance import Signature
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import JobEvent
from gateway.store.base import JobStore, Lease

log = logging.getLogger("gateway.lane")

Filed = Failed | StorageFault | None
"""Why an image could not be filed: a failure of the job, or a fault of a place; None where it was filed."""


class Filing:
    """Encodes and stores images, those of one job in order."""

    def __init__(self, store: JobStore, pictures: Pictures, spool: Path) -> None:
        self._store = store
        self._pictures = pictures
        self._spool = spool

    async def file(self, earlier: asyncio.Task[Filed] | None, lease: Lease, drawn: Drawn) -> Filed:
        """Encode one image, write it to disk, then record it in the job's row after `earlier`; never raises."""
        job = lease.job
        name = f"{job.id}.{job.attempt}.{drawn.image}.png"
        failure: Filed = None
        event: JobEvent | None = None
        try:
            signature = Signature.of(job.plan, drawn.image, drawn.seed)
            note = await asyncio.to_thread(self._keep, self._spool / drawn.spool, name, signature)
            failure = await earlier if earlier is not None else None
            if failure is None:
                event = await self._store.record(lease, _done(drawn, name, note))
        except Exception as error:
            if (failure := fault_of(error)) is None:
                log.exception("a picture could not be filed", extra={"job": job.id})
                failure = Failed(code="internal_error", message="The picture could not be filed.")
        if event is None:
            with contextlib.suppress(OSError, StorageFault):
                await asyncio.to_thread(self._pictures.remove, name)
        return failure

    async def note(self, earlier: asyncio.Task[Filed] | None, lease: Lease, reading: PromptRead) -> Filed:
        """Record in the job's row, after `earlier`, how a prompt was read; never raises."""
        failure = await earlier if earlier is not None else None
        try:
            if failure is None:
                await self._store.record(lease, reading)
        except Exception as error:
            if (failure := fault_of(error)) is None:
                log.exception("the reading of a prompt could not be noted", extra={"job": lease.job.id})
        return failure

    def _keep(self, spooled: Path, name: str, signature: Signature | None) -> Note | None:
        """Store an image; returns the note on its file. Blocks. Raises: StorageFault."""
        self._pictures.keep(spooled, name, signature)
        return self._pictures.note_of(name)


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
