"""Stable Diffusion 1, 2 and XL in MLX, drawn as AUTOMATIC1111 draws it."""

from __future__ import annotations

from pathlib import Path

from engine.drawing.base import Model
from engine.pipelines.stable_diffusion import models
from engine.pipelines.stable_diffusion.loading import load_parts
from engine.pipelines.stable_diffusion.pipeline import StableDiffusion


def load(model: Model) -> StableDiffusion:
    """Load a checkpoint, quantised at load where the model says so. Raises: NotACheckpoint, OSError."""
    return StableDiffusion(models.Models(models.Model(load_parts(Path(model.path), quantize=model.quantize))))
