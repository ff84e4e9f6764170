"""Arguments and environment of the child process. It reads facts about the machine and starts nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from engine.client.options import EngineOptions
from engine.mlx_build import has_cuda_build, on_linux_cpu

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds the package `engine`."""

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")
"""Variables that only the download process may see."""
SECRETS = ("AWS_", "MFLUX_GATEWAY__")
"""How the names of variables begin that only the gateway may see: keys to its storage, and its settings."""
OPENBLAS = "libopenblas.so.0"
LOADER_CACHE = Path("/etc/ld.so.cache")


def child_arguments(options: EngineOptions) -> list[str]:
    """Command line of the child. -P: no imports from the gateway's working directory."""
    script = [] if options.fake_script is None else ["--fake-script", options.fake_script]
    limits = (("--memory-limit", options.memory_limit_bytes), ("--cache-limit", options.cache_limit_bytes))
    limits_given = [word for name, value in limits if value is not None for word in (name, str(value))]
    return [options.python, "-P", "-m", "engine", "--backend", options.backend, *script, *limits_given]


def child_environment(options: EngineOptions, parent: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment, with variables that keep mflux quiet, offline and fast on a CPU."""
    environment = {
        name: value for name, value in parent.items() if name not in HUB_TOKENS and not name.startswith(SECRETS)
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), parent.get("PYTHONPATH"))))
    environment["HF_HUB_OFFLINE"] = "1"
    environment["TOKENIZERS_PARALLELISM"] = "false"
    environment["TQDM_DISABLE"] = "1"
    environment["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # pydantic would read the metadata of every package for them
    environment["TRANSFORMERS_VERBOSITY"] = "error"  # it warns about missing PyTorch, which is not needed
    if options.backend == "mlx" and on_linux_cpu():
        # On a CPU MLX compiles kernels with g++ and loads them from a shared temporary folder: 11 s for the first image
        # of a process, against a gain of at most 8 % afterwards.
        environment.setdefault("MLX_DISABLE_COMPILE", "1")
        preloaded = parent.get("LD_PRELOAD", "")
        if has_openblas() and "openblas" not in preloaded:
            environment["LD_PRELOAD"] = f"{preloaded}:{OPENBLAS}".lstrip(":")
        # One core stays free for the gateway's event loop; OpenBLAS threads spin when they have to share.
        environment.setdefault("OPENBLAS_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))
    elif options.backend == "mlx" and options.kernels is not None and has_cuda_build():
        # MLX runs the kernels that it finds in this folder. Its own choice is in the temporary folder, which every user
        # may write to, and which a restart of the machine empties: each kernel takes seconds to compile.
        environment.setdefault("MLX_PTX_CACHE_DIR", str(options.kernels))
    return environment


def has_openblas() -> bool:
    """Whether the dynamic loader finds OpenBLAS.

    MLX's wheel links the reference BLAS: 4.5 GFLOP/s against 61 with OpenBLAS preloaded, in float32 on two cores.
    """
    try:
        return OPENBLAS.encode() + b"\0" in LOADER_CACHE.read_bytes()
    except OSError:
        return False
