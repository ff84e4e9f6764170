"""Processor time of the start of an engine that loads no model: `python -m benchmarks.engine_start`.

Prints seconds, user and system, median and range of seven processes that import what the fake backend needs.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

from engine.client.environment import child_environment
from engine.client.options import EngineOptions

RUNS = 7
IMPORTS = "import engine.__main__, engine.worker, engine.backends.fake"


def start_s() -> float:
    """Processor seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = child_environment(EngineOptions(backend="fake"), os.environ)
    subprocess.run([sys.executable, "-P", "-c", IMPORTS], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    start_s()  # reads the files once
    seconds = sorted(start_s() for _ in range(RUNS))
    print(f"engine start: {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f})")


if __name__ == "__main__":
    main()
