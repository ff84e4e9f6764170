"""What the child inherits: arguments and environment. Looks at the machine, starts nothing."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.client.options import EngineOptions

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package `engine`."""

OPENBLAS = "libopenblas.so.0"
LOADER_CACHE = Path("/etc/ld.so.cache")


def child_arguments(options: EngineOptions) -> list[str]:
    """-P: the working directory of the gateway is no place to import from."""
    script = [] if options.fake_script is None else ["--fake-script", options.fake_script]
    return [options.python, "-P", "-m", "engine", "--backend", options.backend, *script]


def child_environment(options: EngineOptions, parent: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment, with what keeps mflux quiet, offline and fast on a CPU."""
    environment = dict(parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), parent.get("PYTHONPATH"))))
    environment["HF_HUB_OFFLINE"] = "1"
    environment["TOKENIZERS_PARALLELISM"] = "false"
    environment["TQDM_DISABLE"] = "1"
    if options.backend == "mlx" and has_openblas():
        preloaded = parent.get("LD_PRELOAD", "")
        if "openblas" not in preloaded:
            environment["LD_PRELOAD"] = f"{preloaded}:{OPENBLAS}".lstrip(":")
        # One core stays free for the gateway's event loop; OpenBLAS threads spin when they have to share.
        environment.setdefault("OPENBLAS_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))
    return environment


def has_openblas() -> bool:
    """Whether MLX computes on this Linux CPU, and the loader knows OpenBLAS.

    MLX's wheel links the reference BLAS: 4.5 GFLOP/s against 61 with OpenBLAS before it, in float32 on two cores.
    """
    if sys.platform != "linux":
        return False
    try:
        importlib.metadata.distribution("mlx-cpu")
        return OPENBLAS.encode() + b"\0" in LOADER_CACHE.read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError):
        return False
