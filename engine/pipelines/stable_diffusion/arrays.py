"""Arrays of safetensors files, also of those that hold tensors of types that MLX does not read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from engine.safetensors import Tensor, inspect

_STORED: dict[str, tuple[type[np.generic], mx.Dtype]] = {
    "F32": (np.float32, mx.float32),
    "F16": (np.float16, mx.float16),
    "BF16": (np.uint16, mx.bfloat16),
    "F8_E4M3": (np.uint8, mx.uint8),
}
"""Types by the format's names: those of the bytes, and of the array in MLX. Like MLX, F8_E4M3 is read as its bits."""


def arrays_of(files: Sequence[Path], names: Collection[str]) -> dict[str, mx.array]:
    """Arrays of the files by name: at least those of `names` that they hold.

    MLX reads them when they are evaluated. Where it refuses a file for another tensor of it, they are read now, and
    must be of types in `_STORED`.
    """
    arrays: dict[str, mx.array] = {}
    for file in files:
        try:
            found: Any = mx.load(str(file))
        except RuntimeError:
            found = read_arrays(file, names)
        arrays |= found
    return arrays


def read_arrays(file: Path, names: Collection[str]) -> dict[str, mx.array]:
    """The arrays of these names that are in a file. Raises: UnsafeFile, OSError."""
    tensors = inspect(file).tensors
    with file.open("rb") as opened:
        begin = 8 + int.from_bytes(opened.read(8), "little")
    content = np.memmap(file, np.uint8, "r")
    return {name: _array(content, begin, tensors[name]) for name in names if name in tensors}


def _array(content: np.ndarray, begin: int, tensor: Tensor) -> mx.array:
    numbers, dtype = _STORED[tensor.dtype]
    stored = np.frombuffer(content[begin + tensor.begin : begin + tensor.end].tobytes(), numbers)
    return mx.array(stored.reshape(tensor.shape)).view(dtype)
