"""Where the parameters of a network are stored: names of tensors in files, and what is taken from each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.checkpoints.kinds import NotACheckpoint

Shape = tuple[int, ...]
Sources = Mapping[str, "Source"]
"""Sources by the parameter's name in diffusers and transformers, which is also the engine's."""

_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,120}")


@dataclass(frozen=True, slots=True)
class Source:
    """The tensor that a parameter is taken from."""

    name: str
    third: int | None = None
    """Which third of the tensor's rows, where it holds query, key and value one below the other."""
    is_transposed: bool = False

    def shape_in(self, stored: Shape) -> Shape:
        """Shape of the parameter in a tensor of the shape `stored`."""
        if self.third is not None and stored:
            return (stored[0] // 3, *stored[1:])
        return stored[::-1] if self.is_transposed else stored

    def taken_from(self, stored: Any) -> Any:
        """The parameter in the array `stored`, of NumPy or MLX."""
        if self.third is not None:
            rows = stored.shape[0] // 3
            return stored[self.third * rows : (self.third + 1) * rows]
        return stored.T if self.is_transposed else stored


def unknown_layer(network: str, name: str) -> NotACheckpoint:
    """Error for a tensor that no layer is known for. A name that is no plain one is left out."""
    layer = f" ({name})" if _PLAIN.fullmatch(name) else ""
    return NotACheckpoint(f"Its {network} has a layer that is not known here{layer}.")


def missing_layer(network: str, name: str) -> NotACheckpoint:
    """Error for a parameter without a tensor."""
    return NotACheckpoint(f"Its {network} is incomplete: {name} is missing.")
