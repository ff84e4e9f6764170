"""Toys of so many layers that none of them counts for much in the memory that the model takes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

from tests.support import toys, toys_further, toys_pictures
from tests.support.toys import Toy

LAYERS = 64
TOYS = {toy.name: toy for toy in (*toys.TOYS, *toys_pictures.TOYS, *toys_further.TOYS)}


def deep(toy: Toy) -> Toy:
    """The same with each stack of layers made higher, but those of the VAE. It can be loaded and saved only."""
    return replace(toy, parts=partial(_parts, toy))


def _parts(toy: Toy) -> dict[str, Any]:
    parts = toy.parts()
    for name, part in parts.items():
        if name != "vae":
            _heighten(part)
    return parts


def _heighten(module: Any) -> None:
    import mlx.core as mx
    from mlx import nn

    same = {id(found): found for found in vars(mx).values() if isinstance(found, mx.Dtype)}  # none can be copied
    for child in list(module.values()):
        if isinstance(child, list) and child and all(isinstance(layer, nn.Module) for layer in child):
            child.extend(deepcopy(child[-1], dict(same)) for _ in range(LAYERS - len(child)))
        elif isinstance(child, nn.Module):
            _heighten(child)
