"""How mflux spells each model family: one module each, of its name. Imports MLX, so only the child may import it."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from engine.backends.base import Model
from engine.pipelines import flux2
from engine.pipelines.common.base import Pipeline, Upscaler


def load(model: Model) -> Pipeline:
    """The model with its family's calling convention. FLUX.2 is imported ahead, the others when they are wanted."""
    if model.spec.family == "flux2_tiny":
        return flux2.load_tiny(model)
    return cast(Pipeline, import_module(f"engine.pipelines.{model.spec.family}").load(model))


def load_upscaler(model: Model) -> Upscaler:
    """As load, of a family that draws pictures larger."""
    return cast(Upscaler, import_module(f"engine.pipelines.{model.spec.family}").load(model))
