"""Stable Diffusion 1, 2 and XL in MLX, drawn as AUTOMATIC1111 draws it."""

from __future__ import annotations

from pathlib import Path

from engine.drawing.base import Model
from engine.pipelines.stable_diffusion import models
from engine.pipelines.stable_diffusion.pipeline import StableDiffusion


def load(model: Model) -> StableDiffusion:
    """Load a checkpoint, quantised at load where the model says so. Raises: BackendError, OSError."""
    parts = models.load_checkpoint(Path(model.path), model.quantize)
    return StableDiffusion(models.Models(models.Model(parts)))
