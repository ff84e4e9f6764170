"""Client of the OCR child: starts it when needed, kills it when it is too slow, ends it when it is idle.

Knows frames and signals; jobs are handled by the lane.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from pydantic import ValidationError

from engine.clock import Pulse, patience
from engine.protocol import ModelLoaded, ModelLoading
from gateway.errors import InvalidRequest, Unavailable
from gateway.framing import ChildDied, ended_child, framed, log_stderr, next_frame, started_child, starved
from gateway.jobs.facts import PageRead, Reading
from gateway.jobs.plans import Ocr
from gateway.ocr.packages import MODEL
from gateway.ocr.wire import (
    MAX_ANSWER_BYTES,
    Answer,
    Counted,
    CountPages,
    NotLoaded,
    Opening,
    Read,
    Refused,
    Rendered,
    Request,
    answer_adapter,
)

log = logging.getLogger("gateway.ocr")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "HOME", "TMPDIR")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
THREADS_MOST = 4
BUDGET = 0.75
"""Share of a page's time after which the child leaves lines unread, so that it is not killed."""
CHECKS_MOST = 2
"""Attempts to check a PDF: a child's death is not always the document's fault."""

Fact = ModelLoading | ModelLoaded | Reading | PageRead


@dataclass(frozen=True, slots=True)
class OcrOptions:
    """OCR options. All times are in seconds."""

    max_pages: int = 200
    """Pages of one job."""
    page_s: float = 120.0
    """How long the child may be silent while it reads a page or loads its models."""
    render_s: float = 10.0
    """How long rendering a PDF page may take; a normal one takes a tenth of a second."""
    document_s: float = 1800.0
    """How long all pages of a document may take together."""
    start_s: float = 30.0
    """How long a child that checks PDFs may take to start."""
    check_s: float = 5.0
    """How long counting a PDF's pages may take."""
    idle_s: float = 300.0
    """How long an idle child is kept; it uses half a gigabyte."""
    threads: int | None = None
    """Threads that read; None: one less than there are processors, four at most."""
    default: str = MODEL
    """The reader for requests that name none."""
    vision: Mapping[str, Path] = field(default_factory=dict)
    """Folders of vision models that read, by name."""
    notes: Path | None = None
    """A folder for a file that names the child while it lives."""
    command: tuple[str, ...] = (sys.executable, "-m", "gateway.ocr.child")

    @property
    def used_threads(self) -> int:
        return self.threads or min(THREADS_MOST, max(1, (os.cpu_count() or 1) - 1))


class OcrRefused(Exception):
    """The document cannot be read. `message` is a sentence for the client."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class OcrNotLoaded(Exception):
    """The reader could not be loaded; the child lives."""


class OcrClient:
    """One child and one request at a time. Belongs to one event loop; call `close` at the end.

    A child uses one model only: another model gets a new child, and the memory is freed in between.
    """

    def __init__(self, options: OcrOptions) -> None:
        self._options = options
        self._child: asyncio.subprocess.Process | None = None
        self._model = MODEL
        self._listening: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """Process id of the child, while there is one."""
        return None if self._child is None else self._child.pid

    @property
    def model(self) -> str | None:
        """The child's model, while there is one."""
        return None if self._child is None else self._model

    async def count_pages(self, pdf: bytes) -> int:
        """Number of pages of a PDF. Raises: InvalidRequest if it cannot be read, Unavailable."""
        is_open = False
        for _ in range(CHECKS_MOST):
            is_open = False
            try:
                async with aclosing(self._ask(CountPages(), pdf, MODEL)) as answers:
                    async for answer in answers:
                        is_open = is_open or isinstance(answer, Opening)
                        if isinstance(answer, Counted):
                            return answer.pages
            except OcrRefused as refusal:
                raise InvalidRequest(refusal.message, param="image") from None
            except ChildDied:
                log.warning("the process that looks at PDFs stopped; is_open: %s", is_open)
            except OSError as error:
                raise Unavailable("PDFs cannot be opened now.") from error
        if is_open:
            raise InvalidRequest("The PDF cannot be opened.", param="image")
        raise Unavailable("PDFs cannot be opened now.")

    async def read(self, plan: Ocr, document: bytes, first: int) -> AsyncGenerator[Fact]:
        """Facts while the pages from index `first` on are read; a caller that stops early kills the child.

        Raises: OcrRefused, OcrNotLoaded, ChildDied; StorageFault if no child can be started.
        """
        request = Read(pages=plan.pages, dpi=plan.dpi, first=first, page_s=BUDGET * self._options.page_s)
        try:
            async with aclosing(self._ask(request, document, plan.model)) as answers:
                async for answer in answers:
                    if not isinstance(answer, Counted | Opening | Rendered):
                        yield answer
        except OSError as error:
            log.exception("the OCR process could not be started")
            raise (starved(error) or ChildDied("engine_crash")) from error

    async def close(self) -> None:
        """End the child; a later request starts another one."""
        async with self._turn:
            await self._end()
        await asyncio.gather(*self._leaving)

    # ---- one request -----------------------------------------------------------------------------

    async def _ask(
        self, request: Request, document: bytes, model: str
    ) -> AsyncGenerator[Fact | Counted | Opening | Rendered]:
        """Answers of the child. Raises: OcrRefused, OcrNotLoaded, ChildDied, OSError if no child can be started."""
        answer: Answer | None = None
        ends = 0.0
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            child = await self._started(model)
            is_clean = False
            try:
                async with patience(self._silence_s(request, None)):
                    await _send(child, request, document)
                while True:
                    left_s = self._silence_s(request, answer)
                    if isinstance(answer, Reading) and answer.percent:
                        left_s = ends - Pulse.here().ran_s()
                    async with patience(left_s):
                        answer = await _next(child)
                    if isinstance(answer, Rendered):
                        ends = Pulse.here().ran_s() + self._options.page_s
                    is_clean = _ends(request, answer)
                    if isinstance(answer, Refused):
                        raise OcrRefused(answer.message)
                    if isinstance(answer, NotLoaded):
                        raise OcrNotLoaded
                    yield answer
                    if is_clean:
                        return
            except TimeoutError:
                log.error("the OCR process, pid %d, was silent too long", child.pid)
                if (at_fault := _too_slow(request, answer)) is not None:
                    raise OcrRefused(at_fault) from None
                raise ChildDied("engine_timeout") from None
            except (OSError, asyncio.IncompleteReadError, ValidationError):
                raise ChildDied("engine_crash") from None
            finally:
                # Otherwise the next document would get this one's answers.
                if is_clean:
                    self._rest()
                else:
                    await self._end()

    def _silence_s(self, request: Request, last: Answer | None) -> float:
        """How long the child may be silent after its last answer, in seconds."""
        options = self._options
        if isinstance(last, Opening):
            return options.check_s
        if isinstance(request, CountPages):
            return options.start_s
        return options.render_s if isinstance(last, Reading) and request.pages else options.page_s

    async def _started(self, model: str) -> asyncio.subprocess.Process:
        """A new child, or the running one if it has this model. Raises: OSError."""
        if self._child is not None and (self._child.returncode is not None or self._model != model):
            await self._end()
        if self._child is None:
            threads = str(self._options.used_threads)
            environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            folder = self._options.vision.get(model)
            self._model = model
            self._child = await started_child(
                *self._options.command,
                "--threads",
                threads,
                *(() if folder is None else ("--vision", str(folder.resolve()), "--name", model)),
                notes=self._options.notes,
                cwd=ROOT,
                env={**environment, **OFFLINE, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            )
            self._listening = asyncio.create_task(log_stderr(self._child, log))
        return self._child

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(self._options.idle_s, self._let_go)

    def _let_go(self) -> None:
        task = asyncio.create_task(self._end_if_idle())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _end_if_idle(self) -> None:
        if not self._turn.locked():
            async with self._turn:
                await self._end()

    async def _end(self) -> None:
        """Kill the child and wait for it; it has nothing to save."""
        if self._idle is not None:
            self._idle.cancel()
        child, self._child = self._child, None
        listening, self._listening = self._listening, None
        if child is None:
            return
        await ended_child(child, self._options.notes, listening)


async def _send(child: asyncio.subprocess.Process, request: Request, document: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(framed(request.model_dump_json().encode()) + framed(document))
    await child.stdin.drain()


async def _next(child: asyncio.subprocess.Process) -> Answer:
    """The child's next answer. Raises: IncompleteReadError, ValidationError."""
    return answer_adapter.validate_json(await next_frame(child, MAX_ANSWER_BYTES))


def _too_slow(request: Request, last: Answer | None) -> str | None:
    """Why a PDF is at fault if the child is silent after opening or rendering it; None if it is not."""
    if isinstance(last, Opening):
        return "The PDF takes too long to open."
    if isinstance(last, Reading) and not last.percent and isinstance(request, Read) and request.pages:
        return f"Page {request.pages[last.page]} of the PDF takes too long to render."
    return None


def _ends(request: Request, answer: Answer) -> bool:
    """Whether this is the last answer to the request."""
    match request:
        case CountPages():
            return isinstance(answer, Counted | Refused)
        case Read(pages=pages):
            is_last = isinstance(answer, PageRead) and answer.page + 1 == (len(pages) or 1)
            return is_last or isinstance(answer, Refused | NotLoaded)
        case _:
            assert_never(request)
