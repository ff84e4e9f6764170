"""Device: what will compute before the engine has said it (Metal, CUDA or the CPU), and the memory that it may use.

Reads the system; blocks for milliseconds on macOS, and with CUDA until the driver answers.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.mlx_build import CUDA_SHARE, has_cuda_build
from gateway.machine import total_bytes

Kind = Literal["metal", "cuda", "cpu"]

MEMORY_SHARE = 0.9
"""Share of the machine's memory, if the device names no limit of its own."""
MIB = 2**20
DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Signs of an NVIDIA driver: of the kernel, in a container that hides its /proc, in the Windows subsystem for Linux."""
LARGE_BYTES = 36 * 2**30
"""From this size on Metal gives three quarters of the memory, below it two thirds."""
CPU_CACHE_BYTES = 10**9
CPU_CACHE_SHARE = 18
"""A CPU's cache of freed buffers is at most this part of what models and images may take: a twentieth of the machine's
memory, half of what admission leaves to everything else.
"""
_ANSWER_S = 10


@dataclass(frozen=True, slots=True)
class Device:
    """`limit_bytes` is the memory of models and images together."""

    kind: Kind
    limit_bytes: int


def default_cache_bytes(device: Device) -> int | None:
    """Freed buffers that MLX caches on this device; None leaves it to the engine.

    On a CPU MLX caches 32 MiB, and the system clears each page of every other buffer anew.
    """
    return min(CPU_CACHE_BYTES, device.limit_bytes // CPU_CACHE_SHARE) if device.kind == "cpu" else None


def expected() -> Device:
    """The device according to the system; the engine's own report has precedence."""
    total = total_bytes()
    if has_metal():
        return Device("metal", metal_bytes(total, _number(["/usr/sbin/sysctl", "-n", "iogpu.wired_limit_mb"])))
    if has_cuda():
        query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        told_mib = _number(query)
        return Device("cuda", int(MEMORY_SHARE * total if told_mib is None else CUDA_SHARE * told_mib * MIB))
    return Device("cpu", int(MEMORY_SHARE * total))


def metal_bytes(total: int, wired_limit_mib: int | None = None) -> int:
    """Metal's recommended maximum on a Mac with `total` bytes.

    Source: recommendedMaxWorkingSetSize as llama.cpp prints it: 10922.67 MiB of 16 GiB, 21845.34 of 32, 27648 of 36,
    49152 of 64, or the operator's value of the sysctl iogpu.wired_limit_mb, which is 0 by default.
    """
    if wired_limit_mib:
        return min(total, wired_limit_mib * MIB)
    return total * 3 // 4 if total >= LARGE_BYTES else total * 2 // 3


def has_metal() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def has_cuda() -> bool:
    """Whether an NVIDIA driver is loaded and MLX's CUDA build is installed."""
    return any(sign.exists() for sign in DRIVER) and has_cuda_build()


def _number(command: list[str]) -> int | None:
    """The first line that the command prints, if it is a whole number."""
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=True).stdout
        return int(output.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
