"""Pipelines of FLUX.1 with control maps: Depth, and ControlNets for edges. The maps are in `Frame.control`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mflux.models.flux.flux_initializer import FluxInitializer
from mflux.models.flux.variants.controlnet.controlnet_util import ControlnetUtil
from mflux.models.flux.variants.controlnet.flux_controlnet import Flux1Controlnet
from mflux.models.flux.variants.depth.depth_util import DepthUtil
from mflux.models.flux.variants.depth.flux_depth import Flux1Depth
from mlx import nn

from engine.drawing.base import Model
from engine.drawing.canvas import png_file
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.controlnet import config_with_controlnet
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.flux1_own_loop import Flux1Pipeline


def load_depth(model: Model) -> Pipeline:
    """Load FLUX.1 Depth, which was trained with depth maps."""
    return _DepthPipeline(build_pipeline(model, _Depth), lambda task: {"depth_image_path": task.frame.control})


def load_controlnet(model: Model) -> Pipeline:
    """Load schnell or dev with a ControlNet."""
    pipeline = build_pipeline(model, Flux1Controlnet, config_with_controlnet(model))
    return _ControlnetPipeline(pipeline, _control_arguments)


def _control_arguments(task: ImageTask) -> dict[str, Any]:
    control, followed = task.plan.control, task.frame.control
    assert control is not None
    assert followed is not None
    # mflux opens it twice, once for metadata: this works with a file in memory, but not with an image.
    return {"controlnet_image_path": png_file(followed), "controlnet_strength": control.strength}


class _Depth(Flux1Depth):
    """mflux's pipeline without its own depth estimator, which is a torch pickle from the network."""

    def __init__(self, **kwargs: Any) -> None:
        nn.Module.__init__(self)
        FluxInitializer.init(self, **kwargs)
        self.depth_pro = None


class _DepthPipeline(Flux1Pipeline):
    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        ready = staticmethod(lambda depth_map_path, **_: (depth_map_path, None))
        with patched(DepthUtil, "get_or_create_depth_map", ready), super()._patch_loop(task, denoising):
            yield


class _ControlnetPipeline(Flux1Pipeline):
    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        ready = staticmethod(lambda edges: edges)
        with patched(ControlnetUtil, "_preprocess_canny", ready), super()._patch_loop(task, denoising):
            yield
