"""A server of the bench in processes of its own: start, requests, memory, processor time, end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from benchmarks.peers.environments import Install
from benchmarks.peers.order import Order
from engine.client.environment import OPENBLAS, has_openblas
from engine.mlx_build import on_linux_cpu
from tests.support.live import free_port

SHIM = Path(__file__).parent / "shim"
START_S = 90.0
REQUEST_S = 120.0
STOP_S = 10.0


class Failed(Exception):
    """A server did not start, or did not answer as it should."""


class Program(Protocol):
    """What differs by server: how it is started, and what its clients send."""

    name: str
    install: Install | None
    """None where it runs in this Python's environment."""
    sizes_px: tuple[int, ...]
    health: str
    """The cheapest GET that says that it runs."""
    ready: str
    """The GET that is 200 as soon as it takes requests."""
    ends: tuple[str, ...]
    """How a client ends what it no longer wants: "hang-up" where a request is one connection, "cancel"."""

    def command(self, python: Path, port: int, folder: Path, checkpoint: Path) -> list[str]:
        """How it is started; `folder` is empty and its own."""

    def variables(self, folder: Path, checkpoint: Path) -> Mapping[str, str]:
        """What it needs in its environment besides what all get."""

    def draw(self, client: httpx.Client, order: Order) -> list[bytes]:
        """The images of an order as PNG."""

    def cancel(self, client: httpx.Client, order: Order, after_s: float) -> None:
        """Begin the order, and cancel it after so many seconds, where there is a cancel."""


class Server:
    """A program that runs; a contender."""

    def __init__(self, program: Program, python: Path, home: Path, checkpoint: Path) -> None:
        self.program = program
        self._python = python
        self._home = home
        self._checkpoint = checkpoint
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._starts = 0

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def sizes_px(self) -> tuple[int, ...]:
        return self.program.sizes_px

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> float:
        """Start it; seconds until it is ready. Raises: Failed."""
        self._starts += 1
        folder = self._home / f"{self.name}-{self._starts}"
        folder.mkdir(parents=True)
        self._port = free_port()
        command = self.program.command(self._python, self._port, folder, self._checkpoint)
        environment = {**environment_of(self.program, self._checkpoint, self._home)}
        environment.update(self.program.variables(folder, self._checkpoint))
        self._log = self._home / f"{self.name}.txt"
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with self.client(timeout_s=5) as client:
            while time.monotonic() - began < START_S:
                if self._process.poll() is not None:
                    raise Failed(f"{self.name} left at its start: {self.last_line()}")
                with contextlib.suppress(httpx.TransportError):
                    if client.get(self.program.ready).status_code == 200:
                        return time.monotonic() - began
                time.sleep(0.01)
        raise Failed(f"{self.name} was not ready after {START_S:.0f} s: {self.last_line()}")

    def last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it wrote nothing")

    @contextlib.contextmanager
    def client(self, timeout_s: float = REQUEST_S) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=timeout_s) as client:
            yield client

    def draw(self, order: Order) -> list[bytes]:
        """Raises: Failed."""
        with self.client() as client, self._answering():
            return self.program.draw(client, order)

    def draw_all(self, orders: list[Order], clients: int) -> None:
        """Each client has a connection of its own, and draws its share one after the other. Raises: Failed."""

        def share(number: int) -> None:
            with self.client() as client, self._answering():
                for order in orders[number::clients]:
                    self.program.draw(client, order)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(share, range(clients)))

    def hang_up(self, order: Order, after_s: float) -> None:
        """Begin the order and close the connection after so many seconds. Raises: Failed, as where it ended before."""
        with self.client(timeout_s=after_s) as client, self._answering(), contextlib.suppress(httpx.ReadTimeout):
            self.program.draw(client, order)
            raise Failed(f"{self.name} drew {order.steps} steps within {after_s} s, too soon to hang up.")

    def cancel(self, order: Order, after_s: float) -> None:
        """Begin the order and cancel it after so many seconds. Raises: Failed."""
        with self.client() as client, self._answering():
            self.program.cancel(client, order, after_s)

    def health_ms(self, until: threading.Event, every_s: float) -> list[float]:
        """Milliseconds of each answer of the cheapest GET, one every so many seconds. Raises: Failed."""
        times = []
        with self.client() as client, self._answering():
            while not until.wait(every_s):
                began = time.perf_counter()
                client.get(self.program.health).raise_for_status()
                times.append((time.perf_counter() - began) * 1000)
        return times

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            raise Failed(f"{self.name} answered {error.response.status_code}: {error.response.text[:200]}") from None
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise Failed(f"{self.name} did not answer: {type(error).__name__} {str(error)[:200]}") from None

    def processes(self) -> list[psutil.Process]:
        """Itself and all that it started."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def memory_mb(self) -> float:
        """Memory of all its processes; what they share counts once, where the system tells."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                info = process.memory_full_info()
                total += getattr(info, "pss", info.rss)
        return total / 2**20

    def processor_s(self) -> float:
        """Seconds of processor time of all its processes that run."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def begin_stop(self) -> None:
        """Ask it to end, and do not wait for it."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End it and all that it started, by force where that takes too long."""
        if self._process is None:
            return
        processes = self.processes()
        group = self._process.pid
        self.begin_stop()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=STOP_S)


def environment_of(program: Program, checkpoint: Path, home: Path) -> dict[str, str]:
    """The environment of a server. Peers get what our engine gives its own process on a CPU: a fast BLAS with one core
    left free, and no compiler, which takes longer than it saves.
    """
    environment = {**os.environ, **offline(home), "PEERS_CHECKPOINT": str(checkpoint), "PYTHONPATH": str(SHIM)}
    return environment if program.install is None else {**environment, **on_cpu()}


def offline(home: Path) -> dict[str, str]:
    """Nothing is fetched, and nothing is read or written in the user's own caches."""
    return {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "hub"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "MFLUX_CACHE_DIR": str(home / "cache" / "mflux"),
    }


def on_cpu() -> dict[str, str]:
    quiet = {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not (sys.platform == "linux" and on_linux_cpu()):
        return quiet
    threads = {"OPENBLAS_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1))}
    preload = {"LD_PRELOAD": OPENBLAS} if has_openblas() else {}
    return {**quiet, "MLX_DISABLE_COMPILE": "1", **threads, **preload}
