"""Processes of a fleet under test: PostgreSQL, gateways and workers, each started as its user would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import psycopg

from tests.support.forked import Forked, can_fork
from tests.support.live import ROOT, free_port
from tests.support.postgres import Server

T = TypeVar("T")

LEASE_S = 2.0
START_S = 90.0


class Mistake(Exception):
    """What was to be proved does not hold."""


@dataclass
class Process:
    """A gateway, or a worker where `port` is None, whose clock is so many seconds ahead."""

    name: str
    folder: Path
    config: dict[str, dict[str, Any]]
    port: int | None = None
    ahead_s: float = 0.0
    popen: subprocess.Popen[bytes] | Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "config.yaml"
        file.write_text(json.dumps(self.config))  # JSON is YAML
        role = ["worker"] if self.port is None else ["serve", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            program = ["api_main.py"]
            if self.ahead_s:
                (self.folder / "ahead").write_text(str(self.ahead_s))
                program = ["tests/support/jumping_gateway.py", str(self.folder / "ahead")]
            words = [*program, *role, "--config", str(file)]
            if can_fork(words[0]):
                self.popen = Forked(words, log.fileno())
            else:
                self.popen = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    @property
    def is_alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until its children have left. Raises: Mistake if one of them goes on."""
        if self.popen is None:
            return
        children = psutil.Process(self.pid).children(recursive=True) if self.is_alive else []
        self.popen.kill()
        self.popen.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        if alive:
            raise Mistake(f"{self.name} left {[child.cmdline() for child in alive]} behind")

    def stop(self) -> int:
        """SIGTERM; returns the exit code. Raises: subprocess.TimeoutExpired."""
        assert self.popen is not None
        self.signal(signal.SIGTERM)
        return self.popen.wait(30)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


class Fleet:
    """Gateways and workers on a schema of one PostgreSQL server, with one folder of images. A context manager.

    `script` is the fake engine's; `ahead_s` sets the clocks of some processes, by name; `config` is added to
    every process's configuration.
    """

    def __init__(
        self,
        folder: Path,
        server: Server,
        *,
        gateways: int = 2,
        workers: int = 4,
        script: Mapping[str, Any] | None = None,
        lease_s: float = LEASE_S,
        backend: str = "fake",
        ahead_s: Mapping[str, float] | None = None,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder, self.server = folder, server
        self.url = server.new_url()
        self.files = folder / "files"
        self.output = self.files / "images"
        self.files.mkdir(parents=True)
        self.script = {"step_seconds": 0.02, **(script or {})}
        self._lease_s, self._backend = lease_s, backend
        self._ahead_s, self._config = ahead_s or {}, config or {}
        self.gateways = [self._process(f"gateway-{n}", free_port()) for n in range(1, gateways + 1)]
        self.workers = [self._process(f"worker-{n}", None) for n in range(1, workers + 1)]

    def _process(self, name: str, port: int | None) -> Process:
        folder = self.folder / name
        values: dict[str, dict[str, Any]] = {
            "engine": {"backend": self._backend},
            "models": {"default": "flux2-tiny", "auto_download": False, "steps_as_sent": True},
            "store": {"url": self.url, "data_dir": str(folder / "data"), "min_free_gb": 0},
            "files": {"url": f"file://{self.files}"},
            "generation": {"output_dir": str(folder / "output"), "previews": False},
            "worker": {"name": name, "lease_s": self._lease_s, **({} if port is None else {"lanes": []})},
            "log": {"level": "INFO"},
        }
        if self._backend == "fake":
            values["engine"]["fake_script"] = json.dumps(self.script)
        for section, more in self._config.items():
            values[section] = {**values.get(section, {}), **more}
        return Process(name, folder, values, port, self._ahead_s.get(name, 0.0))

    def reach(self, name: str, url: str) -> None:
        """Let a process that has not started reach the database by another address."""
        for process in self.all:
            if process.name == name:
                process.config["store"]["url"] = url

    @property
    def all(self) -> list[Process]:
        return [*self.gateways, *self.workers]

    def __enter__(self) -> Fleet:
        try:
            for process in self.all:
                process.start()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.all:
            with contextlib.suppress(ProcessLookupError):
                if process.is_alive:
                    process.signal(signal.SIGCONT)
                process.kill()

    def wait_ready(self, names: Sequence[str] | None = None) -> None:
        """Wait until these processes, or all, can do their work. Raises: Mistake."""
        wanted = set(names if names is not None else [process.name for process in self.all])

        def ready() -> bool:
            for process in self.all:
                if process.name in wanted and not process.is_alive:
                    raise Mistake(f"{process.name} has ended: {process.log()[-2000:]}")
            return wanted <= self.ready_names() and all(map(self._answers, self.gateways))

        until(ready, START_S, lambda: f"not ready: {wanted - self.ready_names()}")

    def _answers(self, gateway: Process) -> bool:
        if not gateway.is_alive:
            return True
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{gateway.url}/api/v1/health", timeout=5).status_code == 200
        return False

    def ready_names(self) -> set[str]:
        """Names of the processes that report themselves as ready, each by a process that runs."""
        recent = "seen > extract(epoch FROM clock_timestamp()) - 6"
        try:
            found = self.query(f"SELECT name, report::json->>'state' FROM nodes WHERE {recent}")
        except (psycopg.errors.UndefinedTable, psycopg.OperationalError):  # nobody has created it yet
            return set()
        gateways = {gateway.name for gateway in self.gateways}
        return {name for name, state in found if state == "ready" or name in gateways}

    def image_names(self) -> set[str]:
        """Names of the files of images."""
        return {file.name for file in self.output.glob("*.png")}

    def image(self, name: str) -> bytes | None:
        """The content of an image's file; None where there is none."""
        file = self.output / name
        return file.read_bytes() if file.exists() else None

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement, past the store. Raises: psycopg.Error."""
        with psycopg.connect(self.url, autocommit=True) as db:
            cursor = db.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description is not None else []

    def wait_ended(self, job_ids: Sequence[str], within_s: float = 120.0) -> None:
        """Wait until all these jobs have ended. Raises: Mistake."""
        running = "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND finished_at IS NULL"
        until(
            lambda: self.query(running, (list(job_ids),))[0][0] == 0,
            within_s,
            lambda: f"{self.query(running, (list(job_ids),))[0][0]} of {len(job_ids)} jobs did not end",
        )


def until(holds: Callable[[], T], within_s: float, complaint: Callable[[], str], every_s: float = 0.05) -> T:
    """Wait until something holds; returns it. Raises: Mistake with the complaint."""
    end = time.monotonic() + within_s
    while not (value := holds()):
        if time.monotonic() > end:
            raise Mistake(complaint())
        time.sleep(every_s)
    return value


def wait_attempt(fleet: Fleet, job_id: str, attempt: int) -> None:
    """Wait until a job runs for the n-th time."""
    sql = "SELECT state <> 'queued' AND attempt >= %s FROM jobs WHERE id = %s"
    until(lambda: fleet.query(sql, (attempt, job_id))[0][0], 60, lambda: f"no attempt {attempt} of {job_id}")


def runner(fleet: Fleet, job_id: str) -> Process:
    """The worker that runs a job. Raises: Mistake if it does not start."""
    wait_attempt(fleet, job_id, 1)
    sql = "SELECT nodes.name FROM jobs JOIN nodes ON starts_with(jobs.worker, nodes.id) WHERE jobs.id = %s"
    name = until(lambda: fleet.query(sql, (job_id,)), 30, lambda: "nobody runs the job")[0][0]
    return next(worker for worker in fleet.workers if worker.name == name)
