"""Options of the engine client: how the child is started, and how long each of its phases may take."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options. All times are in seconds. A deadline runs from the child's last report of its job."""

    backend: Literal["mlx", "fake"] = "mlx"
    fake_script: str | None = None
    python: str = sys.executable
    memory_limit_bytes: int | None = None
    """Replaces what the device reports."""
    cache_limit_bytes: int | None = None
    """Freed memory that MLX caches; None leaves it to the backend."""
    start_s: float = 60.0
    """From the start of the process to Ready."""
    load_s: float = 600.0
    first_step_s: float = 600.0
    """The first step of an image while no step time is known: it also encodes the prompt and compiles."""
    step_floor_s: float = 60.0
    step_factor: float = 10.0
    """A step may take this many times the median of the steps before it, and at least `step_floor_s`."""
    decode_s: float = 180.0
    cancel_grace_s: float = 10.0
    """The child is killed if a cancelled job has not ended after this time."""
    cancel_answer_s: float = 0.8
    """After this time a cancelled job has ended for its caller, whatever the child still does."""
    ping_s: float = 5.0
    """After a cancelled job the child must answer a ping within this time."""
    term_grace_s: float = 2.0
    """Between SIGTERM and SIGKILL."""
    eof_grace_s: float = 1.0
    """Between a closed pipe and the exit of the child, or the other way round."""
    stop_s: float = 1.5
    """When the gateway stops, the child is killed after this time; SIGTERM is sent after half of it."""
    backoff_s: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
    """Wait before each start, by the number of failures since a job last ended well."""
    free_restarts: int = 3
    free_restarts_window_s: float = 60.0
    """More failures than this within the window wait too, even where jobs end well in between (R-16)."""
    circuit_failures: int = 5
    circuit_window_s: float = 300.0
    circuit_retry_s: float = 60.0
    """Interval between two starts while the circuit is open."""
    recycle_ratio: float = 1.3
    recycle_slack_bytes: int = 512 * 2**20
    """An idle child is replaced once it uses more than `recycle_ratio` of the memory after its first job, plus this."""
    notes: Path | None = None
    """Folder in which running children are noted."""
    kernels: Path | None = None
    """Folder, closed to others, in which MLX keeps kernels that it has compiled for CUDA; it may be missing."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
