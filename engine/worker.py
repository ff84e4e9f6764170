"""Worker of the child process: reads commands on a thread, runs jobs on the main thread, and writes reports. Images are
decoded on a third thread where a job says so.

It holds one job at most and knows no queue. The message of a failure is fit for a client; the exception goes to stderr.
"""

from __future__ import annotations

import base64
import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Never, assert_never

from pydantic import ValidationError

from engine.decoding import DecodingThread
from engine.drawing.base import (
    Backend,
    BackendError,
    Decode,
    FinishedImage,
    ImageSkipped,
    JobCancelled,
    Model,
    Watcher,
    preview_steps,
    prompt_key,
)
from engine.passes import denoise
from engine.protocol import (
    Cancel,
    Cancelled,
    Decoding,
    Drawn,
    Failed,
    FailureCode,
    Frozen,
    Generate,
    JobReport,
    Load,
    Memory,
    ModelLoaded,
    ModelLoading,
    Ping,
    Pong,
    Preview,
    PromptRead,
    Ready,
    Run,
    Save,
    Skip,
    StepDone,
    Succeeded,
    Upscale,
    decode_command,
    encode,
)
from engine.spool import write_ppm

log = logging.getLogger("engine.worker")

Outcome = Succeeded | Failed | Cancelled
WorkerFact = ModelLoading | ModelLoaded | PromptRead | StepDone | Decoding | Preview | Drawn | Outcome

MEMORY_EVERY_S = 1.0
"""Interval of memory reports while an image is generated."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PARENT_GONE = 3
"""Exit code of a child whose parent closed the pipe."""


class Wire:
    """Output of the child: whole lines, from any thread. The process exits when nobody reads them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.pause_s = 0.0

    def send(self, *messages: Frozen) -> None:
        """Send messages in one write, so that the parent wakes up once."""
        self.write(b"".join(map(encode, messages)))

    def write(self, data: bytes) -> None:
        piece = len(data) if self.pause_s == 0 else 48
        try:
            with self._lock:
                while data:
                    written = os.write(self._fd, data[:piece])
                    data = data[written:]
                    if self.pause_s:
                        time.sleep(self.pause_s)
        except BrokenPipeError:
            os._exit(PARENT_GONE)


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """The current job, and whether it, or its current image, is to be stopped."""

    run: Run
    stop: threading.Event = field(default_factory=threading.Event)
    skip: threading.Event = field(default_factory=threading.Event)
    reported_prompts: set[PromptRead] = field(default_factory=set)
    """Prompts that were reported already: they are the same for most images of a job."""
    reporting: threading.Lock = field(default_factory=threading.Lock)
    """Held while an image is written and reported, which does not happen after the job was cancelled."""

    def report(self, fact: WorkerFact) -> JobReport:
        return JobReport(job=self.run.job, attempt=self.run.attempt, fact=fact)


class Worker:
    """Worker that reads `commands` until end-of-file, and runs them with `backend`."""

    def __init__(self, commands: BinaryIO, wire: Wire, backend: Callable[[], Backend]) -> None:
        self._commands = commands
        self._wire = wire
        self._build_backend = backend
        self._work: queue.SimpleQueue[ActiveJob | Ping] = queue.SimpleQueue()
        self._active: ActiveJob | None = None
        self._decoding = DecodingThread()

    def serve(self) -> Never:
        """Run until the parent closes the pipe; never returns."""
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        backend = self._build_backend()
        limit = backend.memory_limit_bytes
        self._wire.send(Ready(backend=backend.name, device=backend.device, memory_limit_bytes=limit))
        while True:
            match self._work.get():
                case Ping(nonce=nonce):
                    backend.check_device()
                    self._wire.send(Pong(nonce=nonce))
                case ActiveJob() as active:
                    self._decoding.settle()
                    outcome = self._run_job(backend, active)
                    self._active = None
                    # An image of a cancelled job may still be decoded: its memory is no sign of growth.
                    after = [backend.memory()] if self._decoding.is_idle else []
                    self._wire.send(active.report(outcome), *after)
                    if isinstance(outcome, Failed) and outcome.code == "internal_error":
                        # After some errors of a kernel CUDA answers nothing more: this ends the process, and the
                        # gateway starts another one.
                        backend.check_device()

    def _read_commands(self) -> None:
        for line in self._commands:
            try:
                command = decode_command(line)
            except ValidationError:
                log.warning("ignored a line of %d bytes that is no command", len(line))
                continue
            match command:
                case Run():
                    if self._active is not None:
                        log.error("ignored a second job", extra={"job": command.job})
                        continue
                    self._active = ActiveJob(command)
                    self._work.put(self._active)
                case Cancel(job=job):
                    active = self._active
                    if active is not None and active.run.job == job:
                        active.stop.set()
                case Skip(job=job):
                    active = self._active
                    if active is not None and active.run.job == job:
                        active.skip.set()
                case Ping():
                    self._work.put(command)
                case _:
                    assert_never(command)
        os._exit(PARENT_GONE)

    def _run_job(self, backend: Backend, active: ActiveJob) -> Outcome:
        """Run the job; any error becomes its outcome."""
        job = active.run.job
        try:
            self._execute(backend, active)
            return Succeeded()
        except JobCancelled:
            with active.reporting:
                return Cancelled()
        except BackendError as error:
            log.warning("job %s: %s", job, error.code, exc_info=True)
            return Failed(code=error.code, message=error.message)
        except MemoryError:
            log.exception("job %s: out of memory", job)
            backend.clear()
            return Failed(code="engine_oom", message="There is not enough memory to draw this picture.")
        except Exception as error:
            log.exception("job %s failed", job)
            if isinstance(error, OSError) and error.errno in FULL:
                return Failed(code="disk_full", message="The disk is full.")
            if _is_below(error, active.run.spool_dir):
                return Failed(code="storage_fault", message="The spool folder is missing or cannot be used.")
            return Failed(code="internal_error", message="The engine could not draw this picture.")

    def _execute(self, backend: Backend, active: ActiveJob) -> None:
        run = active.run
        model = Model(
            run.spec, run.model_path, run.plan.quantize, run.copy_path, run.also_paths, prompt_key=prompt_key(run.plan)
        )
        if isinstance(run.plan, Save):
            if not backend.holds(model):
                raise BackendError("internal_error", "The model is not loaded any more.")
            return backend.save(run.plan.folder)
        if not backend.holds(model):
            _raise_if_cancelled(active)
            self._load(backend, active, model)
        _raise_if_cancelled(active)
        match run.plan:
            case Load():
                return
            case Upscale() as larger:
                self._produce_image(backend, active, 0, larger.seed, 0, partial(_upscale, backend, run, larger))
            case Generate() as plan:
                try:
                    for image in range(run.first_image, len(plan.seeds)):
                        _raise_if_cancelled(active)
                        self._draw(backend, active, plan, image)
                except JobCancelled:
                    raise
                except Exception:
                    self._decoding.wait(partial(_raise_if_cancelled, active))  # the image before comes first
                    raise
            case _:
                assert_never(run.plan)

    def _load(self, backend: Backend, active: ActiveJob, model: Model) -> None:
        self._wire.send(active.report(ModelLoading(model=model.spec.name)))
        began = time.monotonic()
        try:
            model = _load_copy(backend, model)
        except (BackendError, MemoryError):
            raise
        except Exception as error:
            code: FailureCode = "model_load_failed" if os.path.isdir(model.path) else "model_missing"
            what = "could not be loaded" if code == "model_load_failed" else "is not on this machine"
            raise BackendError(code, f"The model {what}.") from error
        seconds = time.monotonic() - began
        loaded = ModelLoaded(model=model.spec.name, seconds=seconds, from_copy=model.copy is not None)
        self._wire.send(active.report(loaded), backend.memory().model_copy(update={"after": "load"}))

    def _draw(self, backend: Backend, active: ActiveJob, plan: Generate, image: int) -> None:
        run = active.run
        unfinished = Path(run.spool_dir) / f"{run.job}.{run.attempt}.{image}.first.ppm"

        def save_temporary(first: FinishedImage) -> str:
            write_ppm(unfinished, first)
            return str(unfinished)

        def denoise_image(watcher: Watcher) -> Decode:
            return denoise(backend, run.spec, plan, image, run.inputs, watcher, save_temporary)

        beside = run.decode_beside and not plan.low_ram and image + 1 < len(plan.seeds)
        try:
            self._produce_image(backend, active, image, plan.seeds[image], plan.previews, denoise_image, beside=beside)
        finally:
            unfinished.unlink(missing_ok=True)

    def _produce_image(
        self,
        backend: Backend,
        active: ActiveJob,
        image: int,
        seed: int,
        previews: int,
        denoise_image: Callable[[Watcher], Decode],
        *,
        beside: bool = False,
    ) -> None:
        """Generate one image, write it into the spool, and report it; `beside` the next one, from its decoding on."""
        run = active.run
        began = time.monotonic()
        watcher = _Watcher(self._wire, active, image, previews, backend.memory, self._decoding)
        decode = denoise_image(watcher)

        def finish() -> None:
            finished = decode()
            name = f"{run.job}.{run.attempt}.{image}.ppm"
            with active.reporting:
                _raise_if_cancelled(active)  # the caller was told so, and the job's files were deleted
                write_ppm(Path(run.spool_dir) / name, finished)
                drawn = Drawn(
                    image=image,
                    seed=seed,
                    spool=name,
                    width_px=finished.width_px,
                    height_px=finished.height_px,
                    drawn_px=finished.drawn_px,
                    seconds=time.monotonic() - began,
                    cut_short=watcher.cut_short,
                )
                self._wire.send(backend.memory().model_copy(update={"after": "picture"}), active.report(drawn))

        self._decoding.wait(watcher.check)
        if beside:
            active.skip.clear()
            self._decoding.start(finish)
        else:
            finish()
            active.skip.clear()


def _upscale(backend: Backend, run: Run, plan: Upscale, watcher: Watcher) -> Decode:
    finished = backend.upscale(plan, run.inputs[plan.image], watcher)
    return lambda: finished


class _Watcher:
    """Watcher that reports the steps of one image, and stops it between two of them."""

    def __init__(
        self,
        wire: Wire,
        active: ActiveJob,
        image: int,
        previews: int,
        memory: Callable[[], Memory],
        decoding: DecodingThread,
    ) -> None:
        self._decoding = decoding
        self._memory = memory
        self._wire = wire
        self._active = active
        self._image = image
        self._previews = previews
        self._memory_sent_at = time.monotonic()
        self.cut_short = False

    def report_prompt(self, prompt: PromptRead) -> None:
        if prompt not in self._active.reported_prompts:
            self._active.reported_prompts.add(prompt)
            self._send(prompt)

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self._send(StepDone(image=self._image, step=step, steps=steps, seconds=seconds))
        if time.monotonic() - self._memory_sent_at > MEMORY_EVERY_S:
            self._memory_sent_at = time.monotonic()
            self._wire.send(self._memory().model_copy(update={"after": "step"}))
        self.check()
        if step in preview_steps(steps, self._previews):
            jpeg = base64.b64encode(preview()).decode()
            self._send(Preview(image=self._image, step=step, jpeg_base64=jpeg))
            self.check()
        if step < steps and self._active.skip.is_set():
            self.cut_short = True
            raise ImageSkipped

    def start_decoding(self) -> None:
        self.check()
        self._decoding.wait(self.check)
        self._send(Decoding(image=self._image))

    def check(self) -> None:
        """Raises: JobCancelled; the error of the image before, where its decoding failed."""
        _raise_if_cancelled(self._active)
        self._decoding.check()

    def _send(self, fact: WorkerFact) -> None:
        self._wire.send(self._active.report(fact))


def _raise_if_cancelled(active: ActiveJob) -> None:
    """Raises: JobCancelled."""
    if active.stop.is_set():
        raise JobCancelled


def _load_copy(backend: Backend, model: Model) -> Model:
    """Load the model, and return what was loaded: from its quantised copy, or without it where the copy is damaged."""
    if model.copy is not None:
        try:
            backend.load(model)
            return model
        except MemoryError:
            raise
        except Exception:
            log.exception("the quantised copy could not be loaded; the model is quantised anew")
            model = replace(model, copy=None)
    backend.load(model)
    return model


def _is_below(error: Exception, folder: str) -> bool:
    """Whether an OSError is about a file below this folder."""
    name = error.filename if isinstance(error, OSError) and error.errno is not None else None
    return isinstance(name, str) and Path(name).is_relative_to(folder)
