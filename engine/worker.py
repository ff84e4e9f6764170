"""Worker of the child process: reads commands on a thread, runs jobs on the main thread, and writes reports. Images are
decoded on a third thread where a job says so.

It runs one job at most, while the last image of the job before is decoded, and knows no queue.
"""

from __future__ import annotations

import base64
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
from engine.outcomes import Outcome, outcome_of
from engine.output import PARENT_GONE, Wire
from engine.passes import denoise
from engine.protocol import (
    Cancel,
    Cancelled,
    Decoding,
    Denoised,
    Drawn,
    Failed,
    FailureCode,
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
    Upscale,
    decode_command,
)
from engine.spool import write_ppm

log = logging.getLogger("engine.worker")

WorkerFact = ModelLoading | ModelLoaded | PromptRead | StepDone | Decoding | Denoised | Preview | Drawn | Outcome

MEMORY_EVERY_S = 1.0
"""Interval of memory reports while an image is generated."""


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job of the child, and whether it, or its current image, is to be stopped."""

    run: Run
    stop: threading.Event = field(default_factory=threading.Event)
    skip: threading.Event = field(default_factory=threading.Event)
    reported_prompts: set[PromptRead] = field(default_factory=set)
    """Prompts that were reported already: they are the same for most images of a job."""
    reporting: threading.Lock = field(default_factory=threading.Lock)
    """Held while an image is written and reported, which does not happen after the job was cancelled."""
    ended: threading.Event = field(default_factory=threading.Event)
    """The outcome was reported."""

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
        self._ending: ActiveJob | None = None
        """Job whose last image is decoded while the next one may run."""
        self._begun = 0
        """Number of jobs that have begun."""
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
                    self._begun += 1
                    outcome = outcome_of(active.run, partial(self._execute, backend, active), backend.clear)
                    if self._active is not active:
                        continue  # the decoding thread ends it
                    self._active = None
                    # An image of an earlier job may still be decoded: its memory is no sign of growth.
                    after = [backend.memory()] if self._decoding.is_idle else []
                    self._end(active, outcome, *after)
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
                    for one in (self._active, self._ending):
                        if one is not None and one.run.job == job:
                            one.stop.set()
                            if one is self._ending:
                                self._cancel_ending(one)
                case Skip(job=job):
                    active = self._active
                    if active is not None and active.run.job == job:
                        active.skip.set()
                case Ping():
                    self._work.put(command)
                case _:
                    assert_never(command)
        os._exit(PARENT_GONE)

    def _end(self, active: ActiveJob, outcome: Outcome, *memory: Memory) -> None:
        """Report the outcome of a job, once."""
        with active.reporting:
            self._end_once(active, outcome, *memory)

    def _end_once(self, active: ActiveJob, outcome: Outcome, *memory: Memory) -> None:
        if not active.ended.is_set():
            active.ended.set()
            self._wire.send(active.report(outcome), *memory)

    def _cancel_ending(self, active: ActiveJob) -> None:
        """End a job at once whose last image is decoded, unless that is being written."""
        if active.reporting.acquire(blocking=False):
            try:
                self._end_once(active, Cancelled())
            finally:
                active.reporting.release()

    def _execute(self, backend: Backend, active: ActiveJob) -> None:
        run = active.run
        model = Model(
            run.spec, run.model_path, run.plan.quantize, run.copy_path, run.also_paths, prompt_key=prompt_key(run.plan)
        )
        may_join = run.begins_beside and isinstance(run.plan, Generate) and not run.plan.low_ram
        if not (may_join and backend.holds(model)):
            self._decoding.settle(partial(_raise_if_cancelled, active))
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
                    if self._ending is None:  # the job's image before comes first
                        self._decoding.wait(partial(_raise_if_cancelled, active))
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
            code: FailureCode = "model_load_failed" if os.path.exists(model.path) else "model_missing"
            what = "could not be loaded" if code == "model_load_failed" else "is not on this machine"
            raise BackendError(code, f"The model {what}.") from error
        seconds = time.monotonic() - began
        loaded = ModelLoaded(model=model.spec.name, seconds=seconds, from_copy=model.copy is not None)
        memory = backend.memory().model_copy(update={"after": "load", "job": active.run.job})
        self._wire.send(active.report(loaded), memory)

    def _draw(self, backend: Backend, active: ActiveJob, plan: Generate, image: int) -> None:
        run = active.run
        unfinished = Path(run.spool_dir) / f"{run.job}.{run.attempt}.{image}.first.ppm"

        def save_temporary(first: FinishedImage) -> str:
            write_ppm(unfinished, first)
            return str(unfinished)

        def denoise_image(watcher: Watcher) -> Decode:
            return denoise(backend, run.spec, plan, image, run.inputs, watcher, save_temporary)

        is_last = image + 1 == len(plan.seeds)
        beside = not plan.low_ram and (run.ends_beside if is_last else run.decode_beside)
        hand_over = partial(self._hand_over, backend, active, image) if is_last else self._decoding.start
        try:
            self._produce_image(
                backend, active, image, plan.seeds[image], plan.previews, denoise_image, hand_over if beside else None
            )
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
        hand_over: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Generate one image, write it into the spool, and report it. `hand_over` has this done, from the decoding on,
        beside the next image.
        """
        run = active.run
        began, job_number = time.monotonic(), self._begun
        follows_another = image == run.first_image and not self._decoding.is_idle
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
                is_alone = not follows_another and self._begun == job_number
                used = {"after": "picture" if is_alone else "step", "job": run.job}
                self._wire.send(backend.memory().model_copy(update=used), active.report(drawn))

        self._decoding.wait(watcher.check)
        if hand_over is not None:
            active.skip.clear()
            hand_over(finish)
        else:
            finish()
            active.skip.clear()

    def _hand_over(self, backend: Backend, active: ActiveJob, image: int, finish: Callable[[], None]) -> None:
        """Have the last image of a job decoded and the job ended, while the next one may run."""
        self._ending, self._active = active, None
        if active.stop.is_set():  # the thread that reads commands saw the job before or after this
            self._ending = None
            return self._end(active, Cancelled())

        def end() -> None:
            outcome = outcome_of(active.run, finish, backend.clear)
            self._ending = None
            self._end(active, outcome, *([backend.memory()] if self._active is None else []))
            if isinstance(outcome, Failed) and outcome.code == "internal_error":
                self._work.put(Ping(nonce=0))  # the device is checked between two jobs

        self._wire.send(backend.memory().model_copy(update={"after": "step"}), active.report(Denoised(image=image)))
        self._decoding.start(end)


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
