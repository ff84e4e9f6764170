"""How the child is started and how long each of its phases may take, as data."""

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
    """All times in seconds. A deadline runs from the last thing the child said of its job."""

    backend: Literal["mlx", "fake"] = "mlx"
    fake_script: str | None = None
    python: str = sys.executable
    memory_limit_bytes: int | None = None
    """Instead of what the device says."""
    cache_limit_bytes: int | None = None
    """Freed memory that MLX keeps; None leaves it to the backend."""
    start_s: float = 60.0
    """From the start of the process to Ready."""
    load_s: float = 600.0
    first_step_s: float = 600.0
    """The first step of a picture while no step time is known: it encodes the prompt and compiles, too."""
    step_floor_s: float = 60.0
    step_factor: float = 10.0
    """A step may take this many times the median of the steps before it, and `step_floor_s` at least."""
    decode_s: float = 180.0
    cancel_grace_s: float = 10.0
    """A job asked to stop gets this long before the child is killed."""
    cancel_answer_s: float = 0.8
    """After this a cancelled job is over for its caller, whatever the child still does with it."""
    ping_s: float = 5.0
    """After a cancelled job the child must prove within this time that it is clean."""
    term_grace_s: float = 2.0
    """Between SIGTERM and SIGKILL."""
    eof_grace_s: float = 1.0
    """Between one end of a child's life (exit, closed pipe) and the other."""
    backoff_s: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
    """The wait before each start, by failures since a job last ended well."""
    free_restarts: int = 3
    free_restarts_window_s: float = 60.0
    """More failures within this time wait, too, even where jobs end well in between (R-16)."""
    circuit_failures: int = 5
    circuit_window_s: float = 300.0
    circuit_retry_s: float = 60.0
    """While the circuit is open, the engine is tried again this often."""
    recycle_ratio: float = 1.3
    recycle_slack_bytes: int = 512 * 2**20
    """An idle child is replaced once it holds this much more than `recycle_ratio` of what its first job left."""
    notes: Path | None = None
    """A folder in which the child is noted while it lives."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
