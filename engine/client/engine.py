"""Client of the engine: runs jobs one at a time, and keeps a child process alive to run them. A job may begin while the
last image of the one before is decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, assert_never

from engine.client.child import EXPECTED, Child
from engine.client.options import EngineOptions
from engine.client.turn import DeathReason, EngineDied, Fact, Phase, Turn
from engine.clock import Alarm, patience
from engine.protocol import (
    Cancel,
    Cancelled,
    Denoised,
    Failed,
    JobReport,
    Memory,
    ModelLoaded,
    ModelLoading,
    Run,
    Skip,
    Succeeded,
)

log = logging.getLogger("engine.client")

HIGH_WATER = 0.8
"""Share of the memory: an engine that is killed while using more has run out of memory."""

State = Literal["starting", "ready", "busy", "down", "stopped"]


class EngineStopped(Exception):
    """The engine was stopped; no job runs any more."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Status of the engine. `reason` is one sentence fit for a client; None where nothing is wrong."""

    state: State
    backend: str
    reason: str | None = None
    device: str | None = None
    pid: int | None = None
    loaded_model: str | None = None
    memory: Memory | None = None
    memory_limit_bytes: int | None = None
    """Memory that the engine may use, by its device or the settings; None where neither gives a limit."""
    starts: int = 0
    """Processes since `Engine.start`; `deaths` of them ended unexpectedly."""
    deaths: int = 0

    @property
    def works(self) -> bool:
        return self.state in ("ready", "busy")


class Engine:
    """Owner of the child process. Belongs to one event loop; call `start` before, `stop` after."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.on_memory: Callable[[Run, Memory], None] = lambda run, memory: None
        """Called with the memory that a run used after loading, and at the peak of each image."""
        self.keeps: Callable[[Run, Phase], bool] = lambda run, phase: phase != "loading"
        """Whether the model in memory is worth waiting until the child leaves a cancelled run in that phase."""
        self._limit_bytes = options.memory_limit_bytes
        self._supervision: asyncio.Task[None] | None = None
        self._stopping = False
        self._child: Child | None = None
        self._turns: dict[str, Turn] = {}
        self._changed = asyncio.Event()
        self._failures: deque[float] = deque(maxlen=options.circuit_failures)
        self._failures_in_a_row = 0
        self._failures_lately = 0
        self._starts = self._deaths = 0
        self._reason: str | None = None
        self._down = False
        self._loaded_model: str | None = None
        self._memory: Memory | None = None
        self._unloading: Child | None = None
        """Child that is being replaced by `unload`; it gets no further job."""

    # ---- start and stop ------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to keep a child alive; returns at once."""
        if self._supervision is None:
            self._stopping = False
            self._supervision = asyncio.create_task(self._supervise(), name="engine supervision")

    async def wait_begun(self) -> None:
        """Wait until the first process was started, or could not be. Raises: EngineStopped."""
        while not self._starts and not self._failures:
            await self._wait_for_change()

    async def stop(self) -> None:
        """Stop the child by end-of-file, then SIGTERM, then SIGKILL; leaves no process behind."""
        self._stopping = True
        if self._child is not None:
            self._child.close(self._options.stop_s)
            await asyncio.shield(self._child.exited)
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervision
            self._supervision = None
        self._notify()

    @property
    def status(self) -> EngineStatus:
        state = partial(
            EngineStatus,
            backend=self._options.backend,
            memory_limit_bytes=self._limit_bytes,
            starts=self._starts,
            deaths=self._deaths,
        )
        child = self._child
        if self._supervision is None or self._stopping:
            return state("stopped", reason="The engine is stopped.")
        if child is None or child.ready is None or child.kill_reason is not None:
            return state("down" if self._down else "starting", reason=self._reason or "The engine is starting.")
        return state(
            "ready" if child.idle else "busy",
            device=child.ready.device,
            pid=child.pid,
            loaded_model=self._loaded_model,
            memory=self._memory,
        )

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until a job could begin. Raises: TimeoutError, EngineStopped."""
        async with patience(timeout_s):
            while not self.is_free:
                await self._wait_for_change()

    @property
    def is_free(self) -> bool:
        """Whether a job could begin."""
        child = self._child
        return child is not None and child.free and child is not self._unloading and self.status.works

    # ---- jobs ----------------------------------------------------------------------------------

    async def run(self, run: Run) -> AsyncGenerator[Fact]:
        """Run a job and yield its facts in order; the last is Succeeded, Failed or Cancelled.

        Waits while no child is free. A caller that stops iterating cancels the job. Raises: EngineDied when the child
        exits or is killed after too long a silence, EngineStopped.
        """
        turn = Turn(run, self._options)
        self._turns[run.job] = turn
        child: Child | None = None
        try:
            child = await self._acquire(turn)
            if child is None:
                yield Cancelled()
                return
            while True:
                fact = await self._next(child, turn)
                yield fact
                if isinstance(fact, Succeeded | Failed | Cancelled):
                    return
        finally:
            if self._turns.get(run.job) is turn:
                del self._turns[run.job]
            if child is not None and not turn.ended:
                self._request_cancel(child, turn)

    async def cancel(self, job_id: str) -> None:
        """Request the cancel of a running job. Returns at once; the outcome is the last fact of the run."""
        turn = self._turns.get(job_id)
        if turn is None or turn.cancel_requested or turn.ended:
            return
        child = self._child
        if child is not None and turn in child.turns:
            self._request_cancel(child, turn)
        else:
            turn.cancel_requested = True
            self._notify()

    def skip(self, job_id: str) -> None:
        """Skip the remaining steps of the current image; does nothing where the job is not on the child."""
        turn, child = self._turns.get(job_id), self._child
        if turn is not None and child is not None and child.turn is turn and not turn.ended:
            child.send(Skip(job=job_id))

    async def unload(self) -> None:
        """Free all memory of the loaded model: its child exits as soon as no job is on it, and a new one is started.

        Returns once the old child has exited. Raises: EngineStopped.
        """
        child = self._child
        if child is None or (not child.turns and self._loaded_model is None):
            return
        self._unloading = child
        try:
            while self._child is child:
                if child.idle:
                    child.close()
                await self._wait_for_change()
        finally:
            self._unloading = None
            self._notify()

    async def _acquire(self, turn: Turn) -> Child | None:
        """The child, with the job sent to it; None where the job was cancelled while it waited."""
        while True:
            if turn.cancel_requested:
                return None
            child = self._child
            if child is not None and self.is_free:
                child.begin(turn)
                return child
            await self._wait_for_change()

    async def _next(self, child: Child, turn: Turn) -> Fact:
        try:
            return await turn.next()
        except TimeoutError:
            log.error("the engine was silent too long while %s", turn.deadline.phase, extra={"job": turn.run.job})
            child.kill("timeout")
            await turn.end()
            return await turn.next()
        except EngineDied:
            if self._stopping:
                raise EngineStopped from None
            raise

    def _request_cancel(self, child: Child, turn: Turn) -> None:
        if turn.cancel_requested:
            return
        turn.cancel_requested = True
        child.send(Cancel(job=turn.run.job))
        turn.set_grace(
            Alarm(self._options.cancel_grace_s, child.kill, "cancel"),
            Alarm(self._options.cancel_answer_s, self._answer_cancelled, child, turn),
        )
        if turn.deadline.phase == "loading":
            self._kill_or_keep(child, turn)

    def _answer_cancelled(self, child: Child, turn: Turn) -> None:
        """MLX cannot be interrupted: the job ends for its caller, and the child is killed where that costs least."""
        if not turn.ended:
            self._kill_or_keep(child, turn)
            turn.answer_cancelled()

    def _kill_or_keep(self, child: Child, turn: Turn) -> None:
        phase = turn.deadline.phase
        if phase == "waiting":
            phase = "drawing" if self._loaded_model == turn.run.spec.name else "loading"
        if len(child.turns) == 1 and not self.keeps(turn.run, phase):
            child.kill("cancel")

    def _on_report(self, child: Child, report: JobReport | Memory) -> None:
        match report:
            case Memory(after=after, job=job):
                self._memory = report
                if after in ("load", "picture") and (turn := child.turn_of(job)) is not None:
                    self.on_memory(turn.run, report)
                if after == "job":
                    self._recycle(child, report)
            case JobReport(job=job, attempt=attempt, fact=fact):
                if (turn := child.turn_of(job, attempt)) is None:
                    log.warning("dropped a fact of a job that the engine does not hold", extra={"job": job})
                    return
                self._update_state(child, turn, fact)
                if not isinstance(fact, Denoised) or turn is child.ending:
                    turn.on_fact(fact)
            case _:
                assert_never(report)

    def _recycle(self, child: Child, memory: Memory) -> None:
        """Replace an idle child whose memory has grown: caches leak, and only a new process frees all of it."""
        if child.first_memory is None:
            child.first_memory = memory
        if not child.turns and self._has_grown(child, memory):
            log.info("replacing the engine: it holds %d bytes", memory.active_bytes)
            child.close()

    def _has_grown(self, child: Child, memory: Memory) -> bool:
        options, first = self._options, child.first_memory
        return first is None or memory.active_bytes > options.recycle_ratio * first.active_bytes + (
            options.recycle_slack_bytes
        )

    def _update_state(self, child: Child, turn: Turn, fact: Fact) -> None:
        match fact:
            case Denoised():
                # Only a child without a job can be replaced; the first one shows how much memory it needs.
                if self._memory is not None and not self._has_grown(child, self._memory):
                    child.ending, child.turn = turn, None
            case ModelLoading():
                self._loaded_model = child.first_memory = None
            case ModelLoaded(model=model):
                self._loaded_model = model
            case Succeeded() | Failed() | Cancelled():
                child.drop(turn)
                self._failures_in_a_row = 0
                if isinstance(fact, Cancelled) and not child.turns:
                    child.send_ping()
            case _:
                pass

    # ---- supervision ---------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Run one child after the other, with pauses, until stopped."""
        while not self._stopping:
            await self._options.sleep(self._pause_s())
            try:
                child = await Child.start(self._options, self._on_report)
            except OSError:
                log.exception("the engine process could not be started")
                self._record_failure("could not be started")
                continue
            try:
                self._set_child(child)
                await self._watch(child)
            except asyncio.CancelledError:
                child.close(self._options.stop_s)
                await asyncio.shield(child.exited)
                raise
            finally:
                self._on_child_exit(child)

    def _set_child(self, child: Child) -> None:
        self._child = child
        self._starts += 1
        self._loaded_model = self._memory = None
        if self._stopping:
            child.close(self._options.stop_s)
        self._notify()

    async def _watch(self, child: Child) -> None:
        """Watch a child until it exits: pass its changes on, and kill it if it is not ready in time."""
        deadline = Alarm(self._options.start_s, child.kill, "start")
        is_reported = False
        try:
            while not child.exited.done():
                await child.changed.wait()
                child.changed.clear()
                if child.ready is not None and not is_reported:
                    is_reported = True
                    deadline.cancel()
                    self._limit_bytes = child.ready.memory_limit_bytes or self._options.memory_limit_bytes
                    log.info(
                        "the engine is ready: %s on %s, pid %d", child.ready.backend, child.ready.device, child.pid
                    )
                    self._reason, self._down = None, False
                self._notify()
        finally:
            deadline.cancel()

    def _on_child_exit(self, child: Child) -> None:
        turns, code = child.turns, child.exit_code
        self._child = None
        reason = death_reason(child, self._memory, self._limit_bytes)
        self._loaded_model = self._memory = None
        job = None if not turns else turns[-1].run.job
        if child.kill_reason not in EXPECTED:
            self._deaths += 1
            log.error("the engine died (%s)\n%s", exit_description(code), child.last_stderr, extra={"job": job})
            self._record_failure(
                "did not become ready in time" if child.kill_reason == "start" else exit_description(code)
            )
        for turn in turns:
            is_to_blame = len(turns) == 1 or (child.kill_reason == "timeout" and turn.is_silent)
            turn.fail(reason, is_shared=not is_to_blame)
        self._notify()

    def _record_failure(self, how: str) -> None:
        now, options = self._options.clock(), self._options
        self._failures.append(now)
        self._failures_in_a_row += 1
        recent = [at for at in self._failures if now - at <= options.circuit_window_s]
        self._failures_lately = sum(now - at <= options.free_restarts_window_s for at in recent)
        self._down = len(recent) >= options.circuit_failures
        self._reason = f"The engine process {how}; it is being started again."
        if self._down:
            again = f"it is tried again every {options.circuit_retry_s:g} seconds"
            self._reason = f"The engine failed {len(recent)} times in a short time, the last time it {how}; {again}."
            log.error("%s", self._reason)
        self._notify()

    def _pause_s(self) -> float:
        if self._down:
            return self._options.circuit_retry_s
        options = self._options
        place = max(0, self._failures_in_a_row - 1, self._failures_lately - options.free_restarts)
        return options.backoff_s[min(place, len(options.backoff_s) - 1)]

    async def _wait_for_change(self) -> None:
        """Wait for a change. Raises: EngineStopped."""
        if self._stopping or self._supervision is None:
            raise EngineStopped
        await self._changed.wait()

    def _notify(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed.clear()


def exit_description(exit_code: int | None) -> str:
    """How a process ended, as the rest of a sentence that begins with "it"."""
    if exit_code is None:
        return "was lost"
    return f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"


def death_reason(child: Child, memory: Memory | None, limit_bytes: int | None) -> DeathReason:
    """Reason of a child's death, as reported for the job that it ran (R-14).

    When memory runs out, Metal throws where nobody can catch it, so the process aborts and its stderr says why. Linux
    kills the process, and counts that. Where neither shows, an abort or a kill with most of the memory in use counts as
    out of memory.
    """
    if child.kill_reason == "timeout":
        return "engine_timeout"
    if child.kill_reason is not None:
        return "engine_crash"
    words = child.last_stderr
    if "OutOfMemory" in words or "Insufficient Memory" in words or child.killed_for_memory:
        return "engine_oom"
    used_bytes = 0 if memory is None else max(memory.active_bytes, memory.peak_bytes)
    is_high = limit_bytes is not None and used_bytes >= HIGH_WATER * limit_bytes
    return "engine_oom" if is_high and child.exit_code in (-signal.SIGABRT, -signal.SIGKILL) else "engine_crash"
