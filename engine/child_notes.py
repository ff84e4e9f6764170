"""Notes about child processes, so that the next gateway kills those that a killed gateway left behind (R-02).

A child exits by itself when its parent's pipe closes, unless it was stopped and cannot read. A note identifies the
process by its start time and command line too, so that another process that later gets the same number is left alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger("engine.client")

GONE_WITHIN_S = 5.0
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of one process among all that ever had its number. `started` is in the system's own format."""

    pid: int
    started: str
    command: str


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class ChildNotes:
    """Notes of running children, one file each, in a folder that one gateway holds. Every method blocks briefly."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, pid: int) -> None:
        """Note a child that was started as the leader of a session of its own. An error while writing is logged, and
        the child goes on.
        """
        try:
            if (found := identity(pid)) is not None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._folder.chmod(0o700)  # whatever was there and whatever the umask is
                file = self._folder / f"{pid}.json"
                unfinished = file.with_suffix(".part")
                with open(unfinished, "w", opener=_private) as opened:
                    opened.write(json.dumps(asdict(found)))
                unfinished.replace(file)
        except OSError:
            log.warning("a child could not be noted", exc_info=True, extra={"pid": pid})

    def forget(self, pid: int) -> None:
        """Remove the note of a child whose exit status was collected."""
        with contextlib.suppress(OSError):
            (self._folder / f"{pid}.json").unlink(missing_ok=True)

    def kill_leftovers(self) -> list[int]:
        """Kill the children that an earlier gateway left behind, with their sessions. Returns the numbers of those that
        were still running.
        """
        ended = []
        try:
            if self._folder.exists():
                self._folder.chmod(0o700)
            files = sorted(self._folder.glob("*"))
        except OSError:
            return []
        for file in files:
            note = _read(file)
            if note is not None and note.pid != os.getpid() and identity(note.pid) == note:
                log.warning("ending a child that an earlier gateway left behind", extra={"pid": note.pid})
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(note.pid, signal.SIGKILL)
                _wait_for_end(note)
                ended.append(note.pid)
            with contextlib.suppress(OSError):
                file.unlink()
        return ended


def identity(pid: int) -> Identity | None:
    """Identity of a running process; None where there is none, or only a zombie."""
    return _of_proc(pid) if sys.platform == "linux" else _of_ps(pid)


def _of_proc(pid: int) -> Identity | None:
    process = Path(f"/proc/{pid}")
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        boot = BOOT.read_text().strip() if BOOT.exists() else ""
    except OSError:
        return None
    state, since_boot = fields[0], fields[19]
    return None if state in "ZX" else Identity(pid, f"{boot} {since_boot}", command)


def _of_ps(pid: int) -> Identity | None:
    words = ["/bin/ps", "-o", "stat=,lstart=,command=", "-ww", "-p", str(pid)]
    try:
        output = subprocess.run(words, capture_output=True, text=True, timeout=10, env={"LC_ALL": "C"}, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    state, *rest = output.stdout.split(maxsplit=6) or [""]
    if len(rest) < 6 or state.startswith("Z"):
        return None
    return Identity(pid, " ".join(rest[:5]), rest[5].strip())


def _read(file: Path) -> Identity | None:
    try:
        value = json.loads(file.read_text())
        return Identity(int(value["pid"]), str(value["started"]), str(value["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _wait_for_end(note: Identity) -> None:
    end = time.monotonic() + GONE_WITHIN_S
    while identity(note.pid) == note and time.monotonic() < end:
        time.sleep(0.01)
