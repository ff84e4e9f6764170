"""Real processes of one fleet: gateways and workers on a PostgreSQL database, with one folder of images."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.forked import Forked
from tests.support.live import Live
from tests.support.postgres import server

LEASE_S = 1.0


class WorkerProcess:
    """`mflux-gateway worker` in a process of its own."""

    def __init__(self, name: str, config: dict[str, Any], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / "config.yaml"
        file.write_text(json.dumps(config))
        self._log = (folder / "worker.log").open("ab")
        self._file = folder / "worker.log"
        words = ["api_main.py", "worker", "--config", str(file), "--name", name, "--data-dir", str(folder / "data")]
        self.process = Forked(words, self._log.fileno())

    def logged(self) -> str:
        return self._file.read_text()

    def wait_for(self, text: str, within_s: float = 30.0) -> None:
        """Wait until its log has this text."""
        end = time.monotonic() + within_s
        while text not in self.logged():
            assert self.process.poll() is None, self.logged()
            assert time.monotonic() < end, self.logged()
            time.sleep(0.02)

    def stop(self, *signals: signal.Signals) -> int:
        """Send these signals and wait for the end."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.05)
        try:
            return self.process.wait(30)
        finally:
            self._log.close()


class ProcessFleet:
    """Starts processes, and stops those that still run in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "files").mkdir()
        self._url = server().new_url()
        self._gateways: list[Live] = []
        self._workers: list[WorkerProcess] = []

    def _config(self, script: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
        return {
            "engine": {"backend": "fake", "fake_script": json.dumps(script)},
            "models": {
                "default": "flux2-tiny",
                "auto_download": False,
                "steps_as_sent": True,
                "cache_dir": str(self._folder / "models"),
            },
            "files": {"url": (self._folder / "files").as_uri()},
            **sections,
            "store": {"url": self._url, "min_free_gb": 0},
            "worker": {"lease_s": LEASE_S, **sections.get("worker", {})},
        }

    def gateway(self, name: str = "gateway", *, ready: bool = True, **sections: dict[str, Any]) -> Live:
        """Start a gateway that only serves."""
        folder = self._folder / name
        folder.mkdir()
        config = self._config({}, worker={"name": name, "lanes": []}, **sections)
        config["store"]["data_dir"] = str(folder / "data")
        live = Live(folder, config=config)
        self._gateways.append(live)
        return live.start(ready=ready)

    def worker(self, name: str = "worker", *, script: dict[str, Any] | None = None, **settings: Any) -> WorkerProcess:
        """Start a worker, and wait until it is there."""
        worker = WorkerProcess(name, self._config(script or {}, worker=settings), self._folder / name)
        self._workers.append(worker)
        worker.wait_for("started")
        return worker

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop(*(() if worker.process.poll() is not None else (signal.SIGTERM, signal.SIGTERM)))
        for gateway in self._gateways:
            if gateway.process is not None and gateway.process.poll() is None:
                gateway.stop()
            gateway.log.close()


@contextmanager
def process_fleet(folder: Path) -> Iterator[ProcessFleet]:
    fleet = ProcessFleet(folder)
    try:
        yield fleet
    finally:
        fleet.stop()
