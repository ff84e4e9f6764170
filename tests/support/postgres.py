"""A PostgreSQL server for tests: one for each test process, on a Unix socket, with a schema for each store."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest

from gateway.store.postgres.connection import quoted
from gateway.store.postgres.store import PostgresStore

OPTIONS = (
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=100",
    "logging_collector=off",
    "timezone=UTC",
)
UNPRIVILEGED = "nobody" if os.getuid() == 0 else None
"""PostgreSQL refuses to run as root."""
_names = itertools.count()


class Server:
    """A server in a temporary folder; `kill` and `start` are for tests of its absence."""

    def __init__(self, options: Sequence[str] = OPTIONS, port: int = 5432) -> None:
        """`port` is in the socket's name; the server listens on it only where `options` give an address."""
        self._options, self._port = (*options, f"port={port}"), port
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.folder.chmod(0o755)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()
        if UNPRIVILEGED is not None:
            shutil.chown(self.folder, UNPRIVILEGED)
        made = [
            program("initdb"),
            "-N",
            "--auth=trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
            self._data,
        ]
        subprocess.run(made, check=True, capture_output=True, user=UNPRIVILEGED, cwd="/")
        self.start()

    def start(self) -> None:
        options = [word for option in self._options for word in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", self._data, "-k", self.folder, *options],
                stdout=log,
                stderr=log,
                user=UNPRIVILEGED,
                cwd="/",
            )
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url()).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """End the server at once, as by a crash."""
        assert self._process is not None
        self._process.send_signal(3)  # SIGQUIT: its children end too, nothing is written
        self._process.wait()

    def kill_all(self) -> None:
        """kill -9 of the server and the processes of its connections."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children)
        self._process.wait()

    def remove(self) -> None:
        if os.getpid() != self._pid:  # a forked gateway ends
            return
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, schema: str | None = None) -> str:
        options = "" if schema is None else f"&options={quote(f'-c search_path={schema}')}"
        return (
            f"postgresql:///postgres?host={quote(str(self.folder), safe='')}&port={self._port}&user=postgres{options}"
        )

    def new_url(self) -> str:
        """The address of a new schema."""
        name = f"queue_{os.getpid()}_{next(_names)}"
        with psycopg.connect(self.url(), autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {quoted(name)}".encode())
        return self.url(name)


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs; skips the test where it is not installed."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    return found


@cache
def server() -> Server:
    """The server of this test process."""
    started = Server()
    atexit.register(started.remove)
    return started


def postgres_store(folder: Path, clock: Callable[[], float] | None = None) -> PostgresStore:
    """A store that belongs to a folder: a second one for the same folder shares its queue."""
    folder.mkdir(parents=True, exist_ok=True)
    address = folder / "postgres"
    if not address.exists():
        address.write_text(server().new_url())
    return PostgresStore(address.read_text(), folder, clock)
