"""How mflux spells each model family: one case a family. Imports MLX, so only the child may import it."""

from __future__ import annotations

from typing import assert_never

from engine.backends.base import Model
from engine.families import flux2
from engine.families.base import Painter


def load(model: Model) -> Painter:
    """The model with its family's calling convention. FLUX.2 is imported ahead, the others when they are wanted."""
    match model.spec.family:
        case "flux2":
            return flux2.load(model)
        case "flux2_tiny":
            return flux2.load_tiny(model)
        case "flux1":
            from engine.families import flux1

            return flux1.load(model)
        case "qwen":
            from engine.families import qwen

            return qwen.load(model)
        case "z_image":
            from engine.families import z_image

            return z_image.load(model)
        case _:
            assert_never(model.spec.family)
