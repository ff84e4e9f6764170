"""Pipelines of Qwen-Image-2.1 and its Turbo with a ControlNet for control maps of any kind: `Frame.control`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mflux.models.qwen21.variants.controlnet.qwen_image_21_controlnet import QwenImage21Controlnet

from engine.drawing.base import Model
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.controlnet import config_with_controlnet
from engine.pipelines.common.pipeline import build_pipeline


def load(model: Model, wrap: Callable[..., Pipeline]) -> Pipeline:
    """Load Qwen-Image-2.1 with a ControlNet, a branch next to the transformer that is quantised and saved with it."""
    return wrap(
        build_pipeline(model, QwenImage21Controlnet, config_with_controlnet(model)), image_arguments=_control_arguments
    )


def _control_arguments(task: ImageTask) -> dict[str, Any]:
    control = task.plan.control
    assert control is not None
    return {"controlnet_image_path": task.frame.control, "controlnet_strength": control.strength}
