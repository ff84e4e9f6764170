"""The cpu lane: has documents read in a child of its own and stores their pages.

Knows the store, the hub and the OCR child; no client and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from engine.protocol import Cancelled, CancelReason, Failed, Ocr, PageRead, Succeeded
from gateway.errors import GatewayError, ModelNotFound, StorageFull
from gateway.hub import Hub
from gateway.job import Outcome
from gateway.ocr.client import OcrClient, OcrDied, OcrNotLoaded, OcrOptions, OcrRefused
from gateway.ocr.packages import MODEL, check_installed, check_vision
from gateway.ocr.request import OcrRequest, is_pdf, resolve
from gateway.runner import LaneRunner
from gateway.store.base import JobStore, Lease

log = logging.getLogger("gateway.ocr")

FAILURE_TEXT = {
    "engine_crash": "The process that reads text stopped twice while reading this document.",
    "engine_timeout": "Reading one page of this document took too long, twice.",
}


class OcrLane(LaneRunner):
    """One document at a time. A second child looks at PDFs as they come in: it must not wait for a long one."""

    lane = "cpu"

    def __init__(self, *, store: JobStore, hub: Hub, options: OcrOptions) -> None:
        super().__init__(store=store, hub=hub)
        self._options = options
        self._reader = OcrClient(options)
        self._checker = OcrClient(options)
        self._work: asyncio.Task[Outcome] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="cpu lane")

    async def stop(self) -> None:
        """Give the running job back to the queue and end the children; pages that were read are kept."""
        self._stopping = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self._reader.close()
        await self._checker.close()

    async def cancel(self, job_id: str, reason: CancelReason) -> None:
        """A page cannot be interrupted, so the child is killed; it is back within seconds."""
        self._cancels[job_id] = reason
        if self._work is not None and self.running is not None and self.running.id == job_id:
            self._work.cancel()

    async def let_go(self, model: str) -> bool:
        """Give back the memory of that reader, once it has no job; whether it held any. The next job starts it."""
        was_there = self._reader.model == model
        if was_there:
            await self._reader.close()
        return was_there

    async def plan(self, request: OcrRequest, document: bytes, name: str) -> Ocr:
        """What to do with a document: a checked PNG, or a PDF as it came; `name` is that of its blob.

        Raises: ModelNotFound, NotInstalled, ModelNotOnDisk, InvalidRequest, Unavailable.
        """
        model = request.model or self._options.default
        self._check(model, pdf=is_pdf(document))
        count = await self._checker.count_pages(document) if is_pdf(document) else None
        return resolve(request, model, name, count, self._options.max_pages)

    def _check(self, model: str, *, pdf: bool) -> None:
        """Raises: ModelNotFound, NotInstalled, ModelNotOnDisk, InvalidRequest."""
        if model == MODEL:
            check_installed(pdf=pdf)
        elif (folder := self._options.vision.get(model)) is not None:
            check_vision(model, folder, pdf=pdf)
        else:
            raise ModelNotFound(param="model")

    def _tidy(self, job_id: str) -> None:
        """Nothing lies about: documents and pages travel through pipes."""

    # ---- one job ---------------------------------------------------------------------------------

    async def _wait_ready(self) -> None:
        """The child starts with the job."""

    async def _do(self, lease: Lease) -> None:
        job = self.running = lease.job
        plan = job.plan
        assert isinstance(plan, Ocr), "the store gives this lane its own jobs only"
        self._hub.begin(job.id, plan.count, len(job.pages))
        if job.id in self._cancels:
            return await self._end(lease, Cancelled())
        work = self._work = asyncio.create_task(self._read(lease, plan))
        try:
            await asyncio.wait({work})
        finally:
            self._work = None
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        if work.cancelled():
            return await self._end(lease, Cancelled())
        error = work.exception()
        if isinstance(error, OcrDied):
            return await self._died(lease, error.reason, FAILURE_TEXT[error.reason])
        await self._end(lease, work.result())

    async def _read(self, lease: Lease, plan: Ocr) -> Outcome:
        """Raises: OcrDied."""
        job = lease.job
        first = len(job.pages)
        if first == plan.count:
            return Succeeded()
        try:
            self._check(plan.model, pdf=bool(plan.pages))
            document = await self._store.blob(plan.document)
            async with aclosing(self._reader.read(plan, document, first)) as facts:
                async for fact in facts:
                    if not isinstance(fact, PageRead):
                        self._hub.publish_progress(job.id, fact)
                    else:
                        await self._store.record(lease, fact)
        except KeyError:
            return Failed(code="bad_input", message="The document is gone.")
        except OcrRefused as refusal:
            return Failed(code="bad_input", message=refusal.message)
        except OcrNotLoaded:
            return Failed(code="model_load_failed", message=f"{plan.model} could not be loaded.")
        except StorageFull as error:
            return Failed(code="disk_full", message=error.message)
        except GatewayError as error:
            return Failed(code="model_missing", message=error.message)
        return Succeeded()
