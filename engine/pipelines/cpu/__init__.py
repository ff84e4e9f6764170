"""What MLX computes slowly on an x86 CPU, computed by NumPy and the same BLAS, bit for bit. It knows no family."""

from __future__ import annotations

import os
import platform

from engine.pipelines.cpu.conv import replace_conv2d
from engine.pipelines.cpu.silu import replace_silu


def replace_slow_functions() -> None:
    """Replace those of MLX's functions that are slower here. Compiled functions cannot leave MLX, so not with these."""
    if platform.machine() in ("x86_64", "AMD64") and os.environ.get("MLX_DISABLE_COMPILE") == "1":
        replace_silu()
        replace_conv2d()
