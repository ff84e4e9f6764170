"""Pipelines of FLUX.1 as in mflux 0.24: schnell, dev and Krea. Others have input images or control maps."""

from __future__ import annotations

from mflux.models.flux.variants.txt2img.flux import Flux1

from engine.drawing.base import Model
from engine.pipelines import flux1_controlled, flux1_images
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.pipelines.common.standard_loop import StandardPipeline
from engine.pipelines.flux1_own_loop import long_encoder


def load(model: Model) -> Pipeline:
    """Load a model of FLUX.1, with a bounded prompt cache in place of mflux's."""
    match model.spec.geometry:
        case "dev-kontext":
            return flux1_images.load_kontext(model)
        case "dev-fill":
            return flux1_images.load_fill(model)
        case "dev-redux":
            return flux1_images.load_redux(model)
        case "dev-depth":
            return flux1_controlled.load_depth(model)
        case "dev-controlnet-canny" | "schnell-controlnet-canny":
            return flux1_controlled.load_controlnet(model)
        case _:
            pipeline = build_pipeline(model, Flux1)
            pipeline.prompt_cache = BoundedPromptCache()
            return StandardPipeline(
                pipeline,
                loras="flux1",
                scheduler="linear",
                arguments=lambda plan: {"guidance": plan.guidance},
                encoder=long_encoder(pipeline),
            )
