"""How mflux spells each model family: one line a family. Imports MLX, so only the child may import it."""

from __future__ import annotations

from collections.abc import Callable

from engine.backends.base import Model
from engine.catalog import Family
from engine.families import flux2
from engine.families.base import Painter

LOADERS: dict[Family, Callable[[Model], Painter]] = {
    "flux2": flux2.load,
    "flux2_tiny": flux2.load_tiny,
}
