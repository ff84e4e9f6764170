"""What a GPU does with the gateway, in under ten minutes: benchmarks/gpu.sh sets it up; python -m benchmarks.gpu --help

The parts, each with a time limit and in processes of its own:
  pixels   the embedded model and toys of four families against the CPU
  weights  FLUX.2 Klein 4B's geometry with random weights, written to disk: 16 GB
  whole, 8-bit, 4-bit   with it: the gateway against mflux alone, seconds a step, four images, memory, cancels
  clients  images a minute for four clients, /health/live meanwhile
  cache    whether a larger engine.cache_limit_gb is quicker

The folder --out gets results.json (after each row), table.txt, gpu.log, pixels.png and an image of each comparison.
Parts that are complete there are not run again. Exit code: 0 all goals met, 1 one is missed, 2 a part is lacking.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from benchmarks import gpu_klein, gpu_pixels
from benchmarks.gpu_report import PartResult, Report, Row, State, table
from benchmarks.gpu_setup import LIKE, Emit, Lacking, Setup, print_row, python_path
from engine.mlx_build import memory_of
from tests.support.live import ROOT

BITS = {"whole": None, "8-bit": 8, "4-bit": 4}
LIMITS_S = {
    gpu_pixels.PART: 150.0,
    gpu_klein.WEIGHTS: 120.0,
    **dict.fromkeys(BITS, 150.0),
    gpu_klein.CLIENTS: 120.0,
    gpu_klein.CACHE: 90.0,
}
"""Seconds that each part may take, in the order in which they run."""
ALL_S = 570.0
LEAST_S = 20.0
"""A part is not begun with less time left."""
LACKING = 3
"""Exit code of the process of a part that lacks something; its last line says what."""
PROBE = """
import json, mlx.core as mx
info = mx.device_info() if mx.default_device().type.name == "gpu" else {}
is_gpu = bool(info)
kind = ("metal" if mx.metal.is_available() else "cuda") if is_gpu else "cpu"
print(json.dumps({"device": kind, **{k: v for k, v in info.items() if isinstance(v, (str, int))}}))
"""


# ---- the process of one part ---------------------------------------------------------------------


def run_part(name: str, setup: Setup, emit: Emit, limit_bytes: float) -> None:
    """Run one part here. Raises: Lacking, and whatever fails."""
    part: Callable[[], None]
    if name in BITS:
        part = partial(gpu_klein.compare, setup, emit, name, BITS[name], limit_bytes)
    elif name == gpu_klein.CLIENTS:
        part = partial(gpu_klein.clients, setup, emit, limit_bytes)
    elif name == gpu_klein.CACHE:
        part = partial(gpu_klein.caches, setup, emit, limit_bytes)
    elif name == gpu_klein.WEIGHTS:
        part = partial(gpu_klein.save_weights, setup, emit)
    else:
        part = partial(gpu_pixels.run, setup, emit)
    part()


def part_process(name: str, setup: Setup, limit_bytes: float) -> int:
    """Exit code of the process of a part."""
    try:
        run_part(name, setup, print_row, limit_bytes)
    except Lacking as lacking:
        print(f"lacking {lacking}", flush=True)
        return LACKING
    except Exception as error:
        traceback.print_exc()
        print(f"failed {type(error).__name__}: {error}".splitlines()[0], flush=True)
        return 1
    return 0


# ---- the process of all parts --------------------------------------------------------------------


def run_all(options: argparse.Namespace, setup: Setup, report: Report, limit_bytes: float) -> None:
    """Run the parts that are not complete; the report is kept after each row."""
    end = time.monotonic() + options.seconds
    with (setup.out / "gpu.log").open("a") as log:
        for name in options.parts:
            if report.is_complete(name):
                print(f"{name}: complete in {setup.out}, not run again", flush=True)
                continue
            report.forget(name)
            limit_s = min(LIMITS_S[name], end - time.monotonic())
            if limit_s < LEAST_S and not setup.tiny:
                report.parts[name] = PartResult("out of time", 0.0, "none was left")
            else:
                print(f"{name}: at most {limit_s:.0f} s", flush=True)
                report.parts[name] = run_child(name, options, setup, report, limit_bytes, limit_s, log)
            keep(setup.out, report)


def run_child(
    name: str,
    options: argparse.Namespace,
    setup: Setup,
    report: Report,
    limit_bytes: float,
    limit_s: float,
    log: TextIO,
) -> PartResult:
    """Run one part in a process, with everything that it starts killed at its end or at the limit."""
    words = [sys.executable, "-m", "benchmarks.gpu", "--only", name, "--memory", str(limit_bytes)]
    words += ["--out", str(setup.out), "--work", str(setup.work)]
    words += ["--tiny"] if setup.tiny else []
    words += [] if setup.cache_gb is None else ["--cache-gb", str(setup.cache_gb)]
    began, reason, state = time.monotonic(), "", "failed"
    environment = {**os.environ, "PYTHONPATH": python_path()}
    with process_group(words, environment, log) as process:
        for line in lines_until(process, began + limit_s):
            if line is None:
                state, reason = "out of time", f"after {limit_s:.0f} s"
                break
            word, _, rest = line.strip().partition(" ")
            if word == "row":
                report.rows.append(Row(**json.loads(rest)))
                print(f"  {report.rows[-1].what}: {report.rows[-1].value:.4g} {report.rows[-1].unit}", flush=True)
                keep(setup.out, report)
            elif word in ("lacking", "failed"):
                reason = rest
        else:
            code = process.wait()
            state = {0: "complete", LACKING: "skipped"}.get(code, "failed")
            reason = reason or (f"exit code {code}" if code else "")
    result: State = state  # type: ignore[assignment]
    return PartResult(result, round(time.monotonic() - began, 1), reason)


@contextmanager
def process_group(words: list[str], environment: dict[str, str], log: TextIO) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, which is killed in the end with all that is left of it."""
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def lines_until(process: subprocess.Popen[str], end: float) -> Iterator[str | None]:
    """Lines of the process until it closes its output; None at the time `end` of the monotonic clock."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stdout = process.stdout
    assert stdout is not None

    def read() -> None:
        with suppress(ValueError):  # the file was closed at the limit
            for line in stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            yield None
            return
        if line is None:
            return
        yield line


def keep(out: Path, report: Report) -> None:
    """Write results.json and table.txt, each at once."""
    for name, text in (("results.json", json.dumps(report.to_json(), indent=1)), ("table.txt", table(report) + "\n")):
        temporary = out / f".{name}"
        temporary.write_text(text)
        temporary.replace(out / name)


def earlier(out: Path, machine: dict[str, Any]) -> Report:
    """The report in `out` if it is of the same machine, otherwise an empty one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        report = Report.from_json(json.loads((out / "results.json").read_text()))
        if report.machine == machine:
            return report
    return Report(machine)


def probe(setup: Setup) -> tuple[dict[str, Any], float]:
    """What computes here, and the bytes of memory that models may take. Raises: CalledProcessError."""
    output = subprocess.run(
        [sys.executable, "-c", PROBE], env=setup.environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    info = json.loads(output.stdout)
    machine = {
        "geometry": "toy" if setup.tiny else LIKE,
        "device": info["device"],
        "name": info.get("device_name"),
        "driver": driver(),
        "MLX": version("mlx"),
        "mflux": version("mflux"),
        "Python": platform.python_version(),
        "cores": os.cpu_count(),
        "cache_gb": setup.cache_gb,
    }
    return machine, memory_of(info) or 2.0**62


def driver() -> str | None:
    """Version of the NVIDIA driver, if there is one."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, stdout=subprocess.PIPE, text=True, check=True, timeout=20).stdout.split("\n")[0]
    return None


def parts_of(text: str) -> list[str]:
    """Names of parts, in the order in which they run. Raises: argparse.ArgumentTypeError."""
    names = text.split(",")
    if unknown := [name for name in names if name not in LIMITS_S]:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]}; there are {', '.join(LIMITS_S)}")
    return [name for name in LIMITS_S if name in names]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out = Path(os.environ.get("OUT") or "gpu-results")
    parser.add_argument("--out", type=Path, default=out, help="folder of the results; $OUT, or gpu-results")
    parser.add_argument("--work", type=Path, help="folder for weights and kernels, kept; a temporary one without it")
    parser.add_argument("--parts", type=parts_of, default=list(LIMITS_S), help=f"of {','.join(LIMITS_S)}")
    parser.add_argument("--seconds", type=float, default=ALL_S, help="for all parts together")
    parser.add_argument("--cache-gb", type=float, help="engine.cache_limit_gb of the gateway")
    parser.add_argument("--tiny", action="store_true", help="toys on the CPU, to try this script; no goal counts")
    parser.add_argument("--only", choices=LIMITS_S, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    work = options.work or Path(tempfile.mkdtemp(prefix="gpu-"))
    work.mkdir(parents=True, exist_ok=True)
    setup = Setup(options.out.resolve(), work.resolve(), options.tiny, options.cache_gb)
    if options.only:
        return part_process(options.only, setup, options.memory)
    try:
        machine, limit_bytes = probe(setup)
        if machine["device"] == "cpu" and not setup.tiny:
            print("MLX computes on the CPU here. --tiny tries this script with toys.", file=sys.stderr)
            return 2
        report = earlier(setup.out, machine)
        run_all(options, setup, report, limit_bytes)
        print(table(report), flush=True)
        return report.exit_code(options.parts, goals=not setup.tiny)
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
