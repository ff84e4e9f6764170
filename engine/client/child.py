"""One child process: its pipes, its stderr and its exit. It knows lines and signals, and leaves their meaning to
Engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from pydantic import ValidationError

from engine.child_notes import ChildNotes
from engine.client.environment import child_arguments, child_environment
from engine.client.options import EngineOptions
from engine.client.turn import Turn
from engine.clock import Alarm
from engine.protocol import (
    MAX_LINE_BYTES,
    Decoding,
    Drawn,
    Frozen,
    JobReport,
    Memory,
    Ping,
    Pong,
    Preview,
    PromptRead,
    Ready,
    StepDone,
    decode_report,
    encode,
)

log = logging.getLogger("engine.client")
child_log = logging.getLogger("engine.child")

VMSTAT = Path("/proc/vmstat")
STDERR_BYTES = 64 * 1024
LAST_LINES = 20

KillReason = Literal["cancel", "stop", "timeout", "nonsense", "unclean", "start", "eof"]
"""Why the gateway killed the child."""

EXPECTED: frozenset[KillReason] = frozenset(("cancel", "stop"))
"""Reasons that are no failure of the child."""


PROGRESS = (StepDone, Decoding, Preview, Drawn, PromptRead)
"""Facts after which the child can do what it could before."""


class Child(asyncio.SubprocessProtocol):
    """Child process. `on_report` is called for every report; `exited` is done once the exit status was collected."""

    def __init__(self, options: EngineOptions, on_report: Callable[[Child, JobReport | Memory], None]) -> None:
        self._options = options
        self._on_report = on_report
        self._loop = asyncio.get_running_loop()
        self._notes = None if options.notes is None else ChildNotes(options.notes)
        self._transport: asyncio.SubprocessTransport | None = None
        self._line = bytearray()
        self._stderr = bytearray()
        self._stderr_line = bytearray()
        self._timers: list[Alarm] = []
        self._ping: tuple[int, Alarm] | None = None
        self._pings = 0
        self.changed = asyncio.Event()
        self.ready: Ready | None = None
        self.kill_reason: KillReason | None = None
        self.turn: Turn | None = None
        self.ending: Turn | None = None
        """Turn whose last image is decoded; another one may run meanwhile."""
        self.first_memory: Memory | None = None
        """Memory in use after the first job with its model."""
        self.exit_code: int | None = None
        self.killed_for_memory = False
        self._kills = memory_kills()
        self.exited: asyncio.Future[int] = self._loop.create_future()

    @classmethod
    async def start(cls, options: EngineOptions, on_report: Callable[[Child, JobReport | Memory], None]) -> Child:
        """Start a child. Raises: OSError where the interpreter cannot be started."""
        environment = await asyncio.to_thread(child_environment, options, os.environ)
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(options, on_report),
            *child_arguments(options),
            env=environment,
            start_new_session=True,
        )
        if child._notes is not None:
            await asyncio.to_thread(child._notes.note, child.pid)
        return child

    @property
    def pid(self) -> int:
        assert self._transport is not None
        return self._transport.get_pid()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Turns on the child, in order."""
        return tuple(turn for turn in (self.ending, self.turn) if turn is not None)

    def turn_of(self, job: str, attempt: int | None = None) -> Turn | None:
        """Turn of this attempt at a job, or of any."""
        turns = (turn for turn in self.turns if turn.run.job == job and attempt in (None, turn.run.attempt))
        return next(turns, None)

    def begin(self, turn: Turn) -> None:
        """Send a job; the child is free."""
        turn.before, self.turn = self.ending, turn
        turn.begin()
        self.send(turn.run)

    def drop(self, turn: Turn) -> None:
        """Forget a turn, which has ended on the child."""
        if self.turn is turn:
            self.turn = None
        if self.ending is turn:
            self.ending = None
        if self.turn is not None and self.turn.before is turn:
            self.turn.on_former_end()

    @property
    def free(self) -> bool:
        """Ready for a job, with no ping outstanding."""
        return self.ready is not None and self.kill_reason is None and self.turn is None and self._ping is None

    @property
    def idle(self) -> bool:
        """Free, with no image being decoded."""
        return self.free and self.ending is None

    @property
    def last_stderr(self) -> str:
        lines = self._stderr.decode(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    # ---- commands to the child ----------------------------------------------------------------

    def send(self, command: Frozen) -> None:
        """Send a command. Nothing happens where the child is gone: `exited` reports that."""
        stdin = self._stdin()
        if stdin is not None and not stdin.is_closing():
            stdin.write(encode(command))

    def send_ping(self) -> None:
        """Send a ping. A child that does not answer in time is killed."""
        self._pings += 1
        timer = Alarm(self._options.ping_s, self.kill, "unclean")
        self._ping = (self._pings, timer)
        self.send(Ping(nonce=self._pings))

    def close(self, within_s: float | None = None) -> None:
        """Close stdin, so that the child exits. If it does not, it is killed, within `within_s` at the latest."""
        if self.kill_reason is None:
            self.kill_reason = "stop"
        stdin = self._stdin()
        if stdin is not None:
            stdin.close()
        if within_s is None:
            self._later(self._options.eof_grace_s, self._terminate)
        else:
            self._later(within_s / 2, self._signal, signal.SIGTERM)
            self._later(within_s, self._signal, signal.SIGKILL)

    def kill(self, why: KillReason) -> None:
        """Send SIGTERM, then SIGKILL. The first reason is kept."""
        if self.exit_code is not None:
            return
        if self.kill_reason is None:
            self.kill_reason = why
            log.warning("killing the engine, pid %d: %s", self.pid, why)
        self._terminate()

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._later(self._options.term_grace_s, self._signal, signal.SIGKILL)

    def _signal(self, which: signal.Signals) -> None:
        """Signal the whole session: MLX may have started a compiler."""
        if self.exit_code is None and not self.exited.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, which)

    def _stdin(self) -> asyncio.WriteTransport | None:
        if self._transport is None:
            return None
        return cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))

    def _later(self, delay_s: float, what: Callable[..., None], *args: object) -> None:
        if not self.exited.done():
            self._timers.append(Alarm(delay_s, what, *args))

    # ---- called by the event loop --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._on_stdout(data)
        else:
            self._on_stderr(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1 and self.exit_code is None:
            self._later(self._options.eof_grace_s, self.kill, "eof")

    def process_exited(self) -> None:
        assert self._transport is not None
        self.exit_code = self._transport.get_returncode()
        self.killed_for_memory = self.exit_code == -signal.SIGKILL and memory_kills() > self._kills
        # Its last output is still read; a grandchild that holds the pipe open is not waited for.
        self._later(self._options.eof_grace_s, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._transport.close()
        for timer in self._timers:
            timer.cancel()
        if self._ping is not None:
            self._ping[1].cancel()
        if not self.exited.done():
            self.exited.set_result(-1 if self.exit_code is None else self.exit_code)
        self.changed.set()
        if self._notes is not None:
            with contextlib.suppress(RuntimeError):  # the loop ends: the next start removes the note
                self._loop.run_in_executor(None, self._notes.forget, self.pid)  # a disk may be slow

    def _on_stdout(self, data: bytes) -> None:
        """Split stdout into lines. After the first invalid line everything else is ignored."""
        for piece in data.splitlines(keepends=True) if self.kill_reason != "nonsense" else ():
            self._line += piece
            if len(self._line) > MAX_LINE_BYTES:
                self._line.clear()
                self._on_invalid_output("a line without end")
                return
            if not self._line.endswith(b"\n"):
                continue
            line = bytes(self._line)
            self._line.clear()
            try:
                report = decode_report(line)
            except ValidationError:
                self._on_invalid_output(f"a line of {len(line)} bytes that is no report")
                return
            self._handle(report)

    def _handle(self, report: Ready | Pong | Memory | JobReport) -> None:
        match report:
            case Ready():
                self.ready = report
            case Pong(nonce=nonce):
                if self._ping is not None and self._ping[0] == nonce:
                    self._ping[1].cancel()
                    self._ping = None
            case Memory() | JobReport():
                self._on_report(self, report)
                if isinstance(report, JobReport) and isinstance(report.fact, PROGRESS):
                    return
        self.changed.set()

    def _on_invalid_output(self, what: str) -> None:
        log.error("the engine, pid %d, said %s", self.pid, what)
        self.kill("nonsense")

    def _on_stderr(self, data: bytes) -> None:
        self._stderr += data
        del self._stderr[:-STDERR_BYTES]
        self._stderr_line += data
        *lines, rest = self._stderr_line.split(b"\n")
        self._stderr_line = rest[-STDERR_BYTES:]
        job = None if not self.turns else self.turns[-1].run.job
        for line in lines:
            child_log.info("%s", line.decode(errors="replace"), extra={"job": job})


def memory_kills() -> int:
    """Number of processes that Linux has killed because memory ran out; 0 where the system does not count them."""
    try:
        counters = VMSTAT.read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill ")), 0)
