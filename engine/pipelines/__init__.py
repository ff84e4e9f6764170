"""Pipelines, a module for each model family. It imports MLX, so only the child process may import it."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from engine.catalog.spec import STABLE_DIFFUSION, Family
from engine.drawing.base import Model
from engine.pipelines import flux2
from engine.pipelines.common.base import Pipeline, Upscaler


def load(model: Model) -> Pipeline:
    """Load the pipeline of a model. FLUX.2 is imported in advance, other families when they are needed."""
    if model.spec.family == "flux2_tiny":
        return flux2.load_tiny(model)
    return cast(Pipeline, import_module(module_of(model.spec.family)).load(model))


def module_of(family: Family) -> str:
    """Name of the module that loads a family's models."""
    return f"engine.pipelines.{'stable_diffusion' if family in STABLE_DIFFUSION else family}"


def load_upscaler(model: Model) -> Upscaler:
    """Load an upscaler, like `load`."""
    return cast(Upscaler, import_module(f"engine.pipelines.{model.spec.family}").load(model))
