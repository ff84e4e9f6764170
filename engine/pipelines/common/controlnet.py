"""Location of a ControlNet's weights. It knows no family."""

from __future__ import annotations

from copy import copy

from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig

from engine.drawing.base import Model


def config_with_controlnet(model: Model) -> ModelConfig:
    """mflux's config of the model, with the folder of its ControlNet in place of the repository's name."""
    config = AVAILABLE_MODELS[model.spec.geometry]
    if not model.also:
        return config
    placed = copy(config)
    placed.controlnet_model = model.also[0]
    # mflux derives the kind of map from the repository's name; a folder may have any name.
    placed.is_canny = config.is_canny
    return placed
