"""Pipeline of Krea 2 Turbo with a ControlNet for depth maps, which are in `Frame.control`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from mflux.models.common.weights.saving.model_saver import ModelSaver
from mflux.models.krea2 import Krea2Initializer
from mflux.models.krea2.variants.controlnet.krea2_controlnet import Krea2Controlnet
from mflux.models.krea2.weights.krea2_weight_definition import Krea2WeightDefinition
from mlx import nn
from mlx.utils import tree_unflatten
from PIL.Image import Image

from engine.drawing.base import Model
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline

FOLDER = "controlnet"
"""Folder of the ControlNet in a saved model."""


class Krea2Controlled(Krea2Controlnet):
    """mflux pipeline without the ControlNet in its weights: mflux merges them at load; here they stay apart, so that
    each image can have a strength of its own.
    """

    def __init__(self, *, model_path: str, quantize: int | None, model_config: Any) -> None:
        nn.Module.__init__(self)
        Krea2Initializer.init(self, model_config, quantize, model_path)
        self.controlnet_strength = 1.0

    def _depth_image(self, image_path: Any, depth_image_path: Any) -> Image:
        depths: Image = depth_image_path
        return depths


class ControlledLinear(nn.Module):
    """Linear layer with the ControlNet's low-rank change added. LoRAs treat it as the layer."""

    def __init__(self, linear: Any, down: mx.array, up: mx.array) -> None:
        super().__init__()
        self.linear = linear
        self.down, self.up = down.T, up.T
        self.strength = 1.0

    @property
    def weight(self) -> mx.array:
        """Weight of the layer without the ControlNet."""
        weight: mx.array = self.linear.weight
        return weight

    def __call__(self, x: mx.array) -> mx.array:
        added = x @ self.down.astype(x.dtype) @ self.up.astype(x.dtype)
        controlled: mx.array = self.linear(x) + self.strength * added
        return controlled


class ControlNetLayers:
    """ControlNet of a transformer, added to its layers."""

    def __init__(self, transformer: Any, file: Path) -> None:
        self.file = file
        self._transformer = transformer
        self._first = transformer.first
        weight, bias, pairs = Krea2Initializer._load_control_checkpoint(transformer, str(file))
        Krea2Initializer._set_control_first(transformer, weight, bias)
        self._firsts = (transformer.first, transformer.control_first)
        self._layers: dict[str, ControlledLinear] = {}
        for (block, target), (down, up) in pairs.items():
            part, name = target.split(".")
            linear = getattr(getattr(transformer.blocks[block], part), name)
            self._layers[f"blocks.{block}.{target}"] = ControlledLinear(linear, down, up)
        self._place(self._layers)
        mx.eval(weight, bias, list(pairs.values()))

    def set_strength(self, strength: float) -> None:
        """Set the control strength for the next images."""
        for layer in self._layers.values():
            layer.strength = strength

    @contextmanager
    def without_controlnet(self) -> Iterator[None]:
        """Context in which the transformer has no ControlNet."""
        transformer = self._transformer
        self._place({name: layer.linear for name, layer in self._layers.items()})
        transformer.first = self._first
        del transformer.control_first
        try:
            yield
        finally:
            transformer.first, transformer.control_first = self._firsts
            self._place(self._layers)

    def _place(self, layers: Any) -> None:
        self._transformer.update_modules(tree_unflatten(list(layers.items())))


class ControlledPipeline(OwnLoopPipeline):
    """Pipeline that sets the control strength for each image, and saves the ControlNet next to the model."""

    controlnet: ControlNetLayers

    def _image_arguments(self, task: ImageTask, strength: float | None) -> dict[str, Any]:
        control = task.plan.control
        assert control is not None
        self.controlnet.set_strength(control.strength)
        return {"depth_image_path": task.frame.control}

    def save(self, folder: str) -> None:
        self._lora_stack.apply(())
        with self.controlnet.without_controlnet():
            ModelSaver.save_model(self._pipeline, self._pipeline.bits, folder, Krea2WeightDefinition)
        (Path(folder) / FOLDER).mkdir()
        shutil.copy(self.controlnet.file, Path(folder) / FOLDER)


def load(model: Model, wrap: Callable[[Any, type[ControlledPipeline]], ControlledPipeline]) -> Pipeline:
    """Load Krea 2 with its ControlNet, which is in a repository of its own until mflux saves the model.

    `wrap` makes a pipeline of the family, as for the model without the ControlNet.
    """
    (file,) = Path(model.also[0] if model.also else Path(model.path) / FOLDER).glob("*.safetensors")
    pipeline = build_pipeline(model, Krea2Controlled)
    controlnet = ControlNetLayers(pipeline.transformer, file)
    controlled = wrap(pipeline, ControlledPipeline)
    controlled.controlnet = controlnet
    return controlled
