"""Where a ControlNet is loaded from. Knows no family."""

from __future__ import annotations

from copy import copy

from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig

from engine.backends.base import Model


def config_with_controlnet(model: Model) -> ModelConfig:
    """mflux's row, but its ControlNet lies where the gateway found it: mflux takes a folder for a repository."""
    config = AVAILABLE_MODELS[model.spec.geometry]
    if not model.also:
        return config
    placed = copy(config)
    placed.controlnet_model = model.also[0]
    # mflux reads from the repository's name what it follows, and a folder may be called anything.
    placed.is_canny = config.is_canny
    return placed
