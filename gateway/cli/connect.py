"""Connection of a command to a gateway that runs, or to one started for the time of the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.cli.failure import Exit, Failure
from gateway.cli.remote import Remote
from gateway.settings import Settings, SettingsError, load_settings

START_S = 60.0
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which gateway to use."""

    url: str | None = None
    """URL from --url or MFLUX_GATEWAY_URL: only this gateway is used."""
    config: Path | None = None

    @property
    def settings(self) -> Settings:
        """Settings of a server started in this folder. Raises: Failure."""
        try:
            return load_settings(["--config", str(self.config)] if self.config else [], os.environ)
        except SettingsError as error:
            raise Failure(str(error), Exit.USAGE) from None

    @property
    def listens_at(self) -> str:
        """The given URL, or the one in the settings. Raises: Failure."""
        if self.url is not None:
            return self.url
        server = self.settings.server
        host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"


@contextmanager
def gateway(where: Where, *, may_start: bool) -> Iterator[Remote]:
    """The named gateway, or the one that runs here, or, if `may_start`, one that runs for the time of the command.

    Raises: Failure if there is none.
    """
    remote = Remote(where.listens_at, os.environ.get("MFLUX_GATEWAY_KEY"))
    try:
        if remote.answers():
            yield remote
            return
    finally:
        remote.close()
    if where.url is not None or not may_start:
        raise Failure(f"No gateway answers at {remote.url}. Start one: mflux-gateway serve", Exit.NO_GATEWAY)
    with _started(where) as own:
        yield own


@contextmanager
def _started(where: Where) -> Iterator[Remote]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ["--config", str(where.config)] if where.config else []
    command = [sys.executable, "-m", "api_main", *config, "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        remote = Remote(f"http://127.0.0.1:{port}", os.environ.get("MFLUX_GATEWAY_KEY"))
        try:
            _wait_for(remote, process, log)
            yield remote
        finally:
            remote.close()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(remote: Remote, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        if remote.has_started():
            return
        time.sleep(0.05)
    log.seek(0)
    messages = [line for line in log.read().decode(errors="replace").splitlines() if line.startswith("mflux-gateway: ")]
    why = messages[-1].removeprefix("mflux-gateway: ") if messages else "it did not answer in time"
    raise Failure(f"The gateway could not be started: {why}", Exit.NO_GATEWAY)
