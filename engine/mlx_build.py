"""Build of MLX on this machine, by the installed packages, and what it says of its device. Imports nothing of MLX."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from typing import Any

CPU_BUILD = "mlx-cpu"
CUDA_BUILDS = ("mlx-cuda-13", "mlx-cuda-12")
"""Packages that hold MLX's library for Linux. They have no module of their own: their files are in `mlx`."""
CUDA_SHARE = 0.95
"""Share of a GPU's memory that MLX uses at most; driver and libraries need the rest. Source: MLX 0.32.2,
backend/cuda/allocator.cpp.
"""
DEVICE_MEMORY = {"max_recommended_working_set_size": 1.0, "total_memory": CUDA_SHARE, "memory_size": 1.0}
"""Names of the memory in `mx.device_info()` (Metal, CUDA, either), and the share of it that models may take."""


def on_linux_cpu() -> bool:
    """Whether the installed MLX is the one for Linux without a GPU."""
    return sys.platform == "linux" and is_installed(CPU_BUILD) and not has_cuda_build()


def has_cuda_build() -> bool:
    """Whether the installed MLX is the one for Linux with CUDA."""
    return sys.platform == "linux" and any(map(is_installed, CUDA_BUILDS))


def is_installed(package: str) -> bool:
    """Whether the metadata of a package is found. Reads folders of `sys.path`."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def memory_of(info: Mapping[str, Any]) -> int | None:
    """Bytes that a GPU offers, from its `mx.device_info()`; None where it names none."""
    return next((int(share * int(info[name])) for name, share in DEVICE_MEMORY.items() if info.get(name)), None)
