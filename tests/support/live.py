"""A real gateway in a process of its own, for tests that speak to it as clients do.

It is started as the README says, or forked from a process that has imported the same: see `tests.support.forked`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.forked import Forked, can_fork

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Below the ports that outgoing connections take, so that it stays free until somebody listens."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.SystemRandom().randrange(20_000, 32_000)
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Live:
    """A gateway under test; `url` is where it listens."""

    folder: Path
    backend: str = "fake"
    fake_script: dict[str, Any] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    program: tuple[str, ...] = ("api_main.py",)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | Forked | None = None
    output: int | None = None
    """The descriptor that stdout and stderr go to; a file where it is None."""
    root: Path = ROOT
    """The checkout that is started; another one than this to compare with."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, ready: bool = True) -> Live:
        config = self.folder / "config.yaml"
        engine: dict[str, Any] = {"backend": self.backend, **self.config.get("engine", {})}
        if self.fake_script is not None:
            engine["fake_script"] = json.dumps(self.fake_script)
        values = {
            **self.config,
            "engine": engine,
            "models": {"default": "flux2-tiny", "auto_download": False, **self.config.get("models", {})},
            "store": {"data_dir": str(self.folder / "data"), "min_free_gb": 0, **self.config.get("store", {})},
            "generation": {"output_dir": str(self.folder / "output"), **self.config.get("generation", {})},
        }
        config.write_text(json.dumps(values))  # JSON is YAML
        self.log = (self.folder / "gateway.log").open("ab")
        output = self.log.fileno() if self.output is None else self.output
        words = [*self.program, "--config", str(config), "--port", str(self.port), *self.arguments]
        if self.root == ROOT and can_fork(self.program[0]):
            self.process = Forked(words, output)
        else:
            environment = {**os.environ, **({} if self.root == ROOT else {"PYTHONPATH": str(self.root)})}
            command = [sys.executable, *words]
            self.process = subprocess.Popen(command, cwd=self.root, stderr=output, stdout=output, env=environment)
        if ready:
            self.wait_for("/health/ready")
        else:
            self.wait_for("/api/v1/health", but=503)  # requests wait for the end of the start, with or without a key
        return self

    def wait_for(self, path: str, timeout_s: float = 60.0, *, but: int | None = None) -> None:
        """Until the answer is 200, or any but that one."""
        assert self.process is not None
        end = time.monotonic() + timeout_s
        with httpx.Client(base_url=self.url, timeout=5) as client:
            while time.monotonic() < end:
                if self.process.poll() is not None:
                    raise AssertionError(f"the gateway left with {self.process.returncode}:\n{self.logged()}")
                with contextlib.suppress(httpx.TransportError):
                    code = client.get(path).status_code
                    if code == 200 or (but is not None and code != but):
                        return
                time.sleep(0.03)
        raise AssertionError(f"{path} was not 200 within {timeout_s} s:\n{self.logged()}")

    def logged(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal the gateway and wait for it; a deaf one is killed and fails the test."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the gateway did not stop") from None
        finally:
            self.log.close()


@contextlib.contextmanager
def live(folder: Path, *, ready: bool = True, **options: Any) -> Iterator[Live]:
    """A gateway on a port of its own, ready, or at least started; stopped in the end."""
    gateway = Live(folder, **options)
    try:
        yield gateway.start(ready=ready)
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.stop()
