"""Memory of this machine. Reads the system; blocks for milliseconds on macOS."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Source: cgroup v2; "max" if there is no limit."""
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
_PAGE_SIZE = re.compile(r"page size of (\d+) bytes")
_PAGES = re.compile(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `free_bytes` is what programs could still get; None if the system does not report it."""

    total_bytes: int
    free_bytes: int | None


def host_name() -> str:
    """The name of this machine, of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node()).strip("-._")[:64] or "host"


def total_bytes() -> int:
    """Memory of the machine, or of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = CGROUP_LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(allowed)) if allowed.isdigit() else total


def memory() -> Memory:
    total = total_bytes()
    free = _on_macos() if sys.platform == "darwin" else _on_linux()
    return Memory(total, None if free is None else min(free, total))


def _on_linux() -> int | None:
    try:
        with open("/proc/meminfo") as file:
            return available_in(file.read())
    except OSError:
        return None


def available_in(meminfo: str) -> int | None:
    """Available bytes from the text of /proc/meminfo."""
    match = _AVAILABLE.search(meminfo)
    return int(match[1]) * 1024 if match else None


def _on_macos() -> int | None:
    try:
        result = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return reclaimable_in(result.stdout)


def reclaimable_in(vm_stat: str) -> int | None:
    """Bytes from the output of vm_stat: pages that are empty or not needed."""
    size, pages = _PAGE_SIZE.search(vm_stat), _PAGES.findall(vm_stat)
    return int(size[1]) * sum(map(int, pages)) if size and pages else None
