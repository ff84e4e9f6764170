"""Pipelines of FLUX.1 with input images: Kontext, Fill and Redux."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mflux.models.common.weights.loading.weight_loader import WeightLoader
from mflux.models.flux.flux_initializer import FluxInitializer
from mflux.models.flux.variants.fill.flux_fill import Flux1Fill
from mflux.models.flux.variants.kontext.flux_kontext import Flux1Kontext
from mflux.models.flux.variants.redux.flux_redux import Flux1Redux
from mflux.models.flux.weights.flux_weight_definition import FluxReduxWeightDefinition

from engine.drawing.base import Model
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.flux1_own_loop import Flux1Pipeline


def load_kontext(model: Model) -> Pipeline:
    """Load Kontext, which edits one reference image."""
    return Flux1Pipeline(build_pipeline(model, Flux1Kontext), lambda task: {"image_path": task.frame.references[0]})


def load_fill(model: Model) -> Pipeline:
    """Load Fill, which repaints the white part of a mask."""
    return _FillPipeline(
        build_pipeline(model, Flux1Fill),
        lambda task: {"image_path": task.frame.init, "masked_image_path": task.frame.mask},
    )


def load_redux(model: Model) -> Pipeline:
    """Load Redux, which encodes reference images as a part of the prompt. Its encoders are in a repository of their
    own, until mflux saves the model.
    """
    encoders = model.also[0] if model.also else model.path

    def load_encoders(_: str | None) -> object:
        return WeightLoader.load(weight_definition=FluxReduxWeightDefinition, model_path=encoders)

    with patched(FluxInitializer, "_load_redux_weights", staticmethod(load_encoders)):
        pipeline = build_pipeline(model, Flux1Redux)
    return Flux1Pipeline(pipeline, lambda task: {"redux_image_paths": list(task.frame.references)})


class _FillPipeline(Flux1Pipeline):
    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        # The model itself keeps the unmasked part; nothing is restored between its steps.
        start = None if task.plan.denoise >= 1 else task.frame.init
        with super()._patch_loop(replace(task, frame=replace(task.frame, init=start, mask=None)), denoising):
            yield
