"""Proxy between a process and PostgreSQL: open, cut as by an unplugged cable, or silent as by a lost route."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Literal
from urllib.parse import quote

State = Literal["open", "cut", "silent"]


class Proxy:
    """A TCP port of this machine before PostgreSQL's Unix socket. A context manager.

    While it is `cut`, connections end and new ones are refused; while it is `silent`, nothing passes.
    """

    def __init__(self, folder: Path) -> None:
        self._to = str(folder / ".s.PGSQL.5432")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._is_cut = self._is_closed = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, address: str) -> str:
        """The address of the database through this proxy, for the address of the same database by its socket."""
        options = address.partition("&options=")[2]
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?options={options or quote('')}"

    def become(self, state: State) -> None:
        self._is_cut = state == "cut"
        (self._passes.clear if state == "silent" else self._passes.set)()
        if state == "cut":
            self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._passes.set()
        self._listener.close()
        self._end_all()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._to)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passes.wait()
                target.sendall(data)
        with self._lock:
            self._open -= {source, target}
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.close()
