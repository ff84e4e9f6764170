"""OCR lane (`cpu`): has documents read by a child process and stores their pages.

Knows the store, the event bus and the OCR child; no client and no protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from engine.clock import patience
from engine.protocol import Failed, FailureCode, Succeeded
from gateway.errors import GatewayError, ModelNotFound, StorageFault
from gateway.events.bus import EventBus
from gateway.framing import ChildDied
from gateway.jobs.facts import PageRead
from gateway.jobs.job import Outcome
from gateway.jobs.plans import Ocr
from gateway.lanes.leases import Leases
from gateway.lanes.pending_stops import Stops
from gateway.lanes.process import ChildLane
from gateway.ocr.checkers import Checkers
from gateway.ocr.client import OcrClient, OcrNotLoaded, OcrOptions, OcrRefused
from gateway.ocr.packages import MODEL, check_installed, check_vision
from gateway.ocr.request import OcrRequest, is_pdf, resolve
from gateway.store.base import JobStore, Lease
from gateway.store.folder_health import StorageHealth

log = logging.getLogger("gateway.ocr")

FAILURE_TEXT = {
    "engine_crash": "The process that reads text stopped twice while reading this document.",
    "engine_timeout": "Reading one page of this document took too long, twice.",
}
TOO_LONG = "The pages of this document took longer than {:g} seconds together; choose fewer of them."


class OcrLane(ChildLane):
    """One document at a time. PDFs in new requests are checked by other children, so that they need not wait for it."""

    lane = "cpu"
    places = ("inputs",)

    def __init__(
        self,
        *,
        store: JobStore,
        bus: EventBus,
        options: OcrOptions,
        inputs: Callable[[str], Awaitable[bytes]],
        storage: StorageHealth | None = None,
        stops: Stops | None = None,
        leases: Leases | None = None,
    ) -> None:
        super().__init__(store=store, bus=bus, storage=storage, stops=stops, leases=leases)
        self._options = options
        self._inputs = inputs
        self._reader = OcrClient(options)
        self._checkers = Checkers(options)

    async def stop(self) -> None:
        """Stop like every lane, and end the children."""
        await super().stop()
        await self._reader.close()
        await self._checkers.close()

    async def let_go(self, model: str) -> bool:
        """Free the memory of a reader when it has no job; whether it had any. The next job loads it again."""
        was_there = self._reader.model == model
        if was_there:
            await self._reader.close()
        return was_there

    async def plan(self, request: OcrRequest, document: bytes, name: str, owner: str) -> Ocr:
        """The plan for an owner's document: a checked PNG, or a PDF as sent; `name` is that of its blob.

        Raises: ModelNotFound, NotInstalled, ModelNotOnDisk, InvalidRequest, Unavailable.
        """
        model = request.model or self._options.default
        self._check(model, pdf=is_pdf(document))
        count = await self._checkers.count_pages(document, owner) if is_pdf(document) else None
        return resolve(request, model, name, count, self._options.max_pages)

    def _check(self, model: str, *, pdf: bool) -> None:
        """Whether the reader is usable. Raises: ModelNotFound, NotInstalled, ModelNotOnDisk, InvalidRequest."""
        if model == MODEL:
            check_installed(pdf=pdf)
        elif (folder := self._options.vision.get(model)) is not None:
            check_vision(model, folder, pdf=pdf)
        else:
            raise ModelNotFound(param="model")

    # ---- one job ---------------------------------------------------------------------------------

    def _extent(self, lease: Lease) -> tuple[int, int]:
        plan = lease.job.plan
        assert isinstance(plan, Ocr), "the store gives this lane its own jobs only"
        return plan.count, len(lease.job.pages)

    def _failure(self, died: ChildDied) -> tuple[FailureCode, str]:
        return died.reason, FAILURE_TEXT[died.reason]

    async def _outcome(self, lease: Lease) -> Outcome:
        """Read the job's pages. A cancel kills the child, since a page cannot be interrupted. Raises: StorageFault."""
        job, plan = lease.job, lease.job.plan
        assert isinstance(plan, Ocr)
        first = len(job.pages)
        if first == plan.count:
            return Succeeded()
        try:
            self._check(plan.model, pdf=bool(plan.pages))
            document = await self._inputs(plan.document)
            left_s = self._options.document_s - sum(page.seconds for page in job.pages)
            async with patience(left_s), aclosing(self._reader.read(plan, document, first)) as facts:
                async for fact in facts:
                    if not isinstance(fact, PageRead):
                        self._bus.publish_progress(job.id, fact)
                    else:
                        await self._store.record(lease, fact)
        except TimeoutError:
            return Failed(code="engine_timeout", message=TOO_LONG.format(self._options.document_s))
        except KeyError:
            if (fault := await self._storage.fault(["inputs"])) is not None:
                raise fault from None
            return Failed(code="bad_input", message="The document is gone.")
        except OcrRefused as refusal:
            return Failed(code="bad_input", message=refusal.message)
        except OcrNotLoaded:
            return Failed(code="model_load_failed", message=f"{plan.model} could not be loaded.")
        except StorageFault:
            raise
        except GatewayError as error:
            return Failed(code="model_missing", message=error.message)
        return Succeeded()
