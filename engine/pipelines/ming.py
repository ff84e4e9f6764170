"""Pipeline of Ming-Image Design as in mflux 0.24. It generates images with transparency, without img2img."""

from __future__ import annotations

from mflux.models.ming_image import MingImage
from mflux.models.ming_image.latent_creator.ming_latent_creator import MingLatentCreator

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline


def load(model: Model) -> Pipeline:
    """Load Ming-Image. mflux caches the last few prompts itself."""
    return OwnLoopPipeline(
        build_pipeline(model, MingImage),
        layout=MingLatentCreator,
        sigmas=lambda steps, width, height: MingImage.sigmas(steps).tolist(),
        arguments=lambda plan: {"guidance": plan.guidance},
    )
