"""Gateways forked from a process that has imported all they import, which is most of the work of a start.

The process is started with the first gateway of a test process and leaves with it; it has one thread and no connection.

`python tests/support/forked.py FD` is that process; it is asked for gateways at the socket FD.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import math
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = "-c"
"""As Python takes it: the next word is a program."""
PROGRAMS = ("api_main.py", "tests/support/toy_gateway.py", CODE)
"""Those that change nothing before the gateway's modules are imported."""
IMPORTED = (
    "encodings.idna",
    "gateway.app",
    "gateway.startup",
    "gateway.cli",
    "gateway.http.server",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.h11_impl",
    "uvloop",
)
"""What a gateway that serves has imported, with what these import, besides the protocols."""
READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_")
"""What the names of variables begin with that the interpreter, the loader and the C library read when they start."""
ANEW = "TESTS_START_ANEW"
"""Where this variable is set, each gateway is started anew."""
MOST_BYTES = 200_000
READ = b"read"


def can_fork(program: str) -> bool:
    """Whether a gateway may be forked: on Linux, of a known program, with the same variables that a start reads."""
    if sys.platform != "linux" or ANEW in os.environ:
        return False
    return program in PROGRAMS and read_at_start() == first_read_at_start()


def read_at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}


@functools.cache
def first_read_at_start() -> dict[str, str]:
    """Of the first gateway, with which the process is started."""
    return read_at_start()


class Forked:
    """A forked gateway, with what tests use of `subprocess.Popen`."""

    def __init__(self, words: list[str], log: int) -> None:
        self._words = words
        self.returncode: int | None = None
        self._reading = threading.Lock()
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            request = json.dumps({"words": words, "umask": umask(), "environment": dict(os.environ)}).encode()
            socket.send_fds(forker(), [request], [theirs.fileno(), log])
        self.pid = int(self._status.recv(MOST_BYTES))

    def poll(self) -> int | None:
        with self._reading:
            if self.returncode is None:
                with contextlib.suppress(BlockingIOError):
                    self.returncode = int(self._status.recv(MOST_BYTES, socket.MSG_DONTWAIT))
                    self._status.send(READ)
                    self._status.recv(MOST_BYTES)  # the end: it is no zombie any more
                    self._status.close()
            return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        """Raises: subprocess.TimeoutExpired."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self._words, timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


@functools.cache
def forker() -> socket.socket:
    """The socket at which the process is asked for gateways."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)

    def leave() -> None:
        ours.close()
        process.wait()

    atexit.register(leave)
    return ours


def serve(requests: socket.socket) -> list[str] | None:
    """Fork a gateway for each request and tell how it ended; the words of the gateway in it, None at the end."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children = Children()
    while True:
        readable, _, _ = select.select([requests, heard, *children.running], [], [])
        if heard in readable:
            heard.recv(MOST_BYTES)
            children.tell()
        for status in children.running.keys() & set(readable):
            children.reap(status)
        if requests not in readable:
            continue
        data, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, 2)
        if not data:
            children.end()
            return None
        status, log = socket.socket(fileno=descriptors[0]), descriptors[1]
        request = json.loads(data)
        if pid := os.fork():
            children.running[status] = pid
            status.send(str(pid).encode())
            os.close(log)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for one in (requests, heard, told, status, *children.running):
            one.close()
        for output in (1, 2):
            os.dup2(log, output)
        os.close(log)
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        words: list[str] = request["words"]
        return words


class Children:
    """The forked gateways. One that ended is a zombie until its code is read, as where `subprocess` starts it."""

    def __init__(self) -> None:
        self.running: dict[socket.socket, int] = {}
        self._told: set[int] = set()
        self._left: set[int] = set()
        """Those for whose code nobody waits."""

    def tell(self) -> None:
        """Tell the codes of those that ended."""
        for status, pid in self.running.items():
            if pid not in self._told and (end := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
                self._told.add(pid)
                with contextlib.suppress(BrokenPipeError):
                    status.send(str(code).encode())
        self._left = {pid for pid in self._left if os.waitpid(pid, os.WNOHANG) == (0, 0)}

    def end(self) -> None:
        """Where the tests were broken off, those that they left go too."""
        for pid in (*self.running.values(), *self._left):
            os.kill(pid, signal.SIGTERM)  # of a zombie it is lost

    def reap(self, status: socket.socket) -> None:
        """Its code was read, or will never be."""
        status.recv(MOST_BYTES)
        pid = self.running.pop(status)
        if pid in self._told:
            os.waitpid(pid, 0)
            self._told.remove(pid)
        else:
            self._left.add(pid)
        status.close()


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for name in (*IMPORTED, *importlib.import_module("adapters").PROTOCOLS):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the pages of what is imported stay shared
    if (words := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        if words[0] == CODE:
            code = words.pop(1)
            sys.argv = words
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102  # of a test
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
