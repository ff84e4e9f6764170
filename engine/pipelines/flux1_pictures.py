"""FLUX.1 Kontext, Fill and Redux: they follow pictures."""

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

from engine.backends.base import Model
from engine.pipelines.common.base import Painter, Sketch
from engine.pipelines.common.denoising import Sitting
from engine.pipelines.common.patching import swapped
from engine.pipelines.common.pipeline import built
from engine.pipelines.flux1_own_loop import Flux1Painter


def load_kontext(model: Model) -> Painter:
    """It edits one reference."""
    return Flux1Painter(built(model, Flux1Kontext), lambda sketch: {"image_path": sketch.frame.references[0]})


def load_fill(model: Model) -> Painter:
    """It repaints the white of a mask."""
    return _FillPainter(
        built(model, Flux1Fill),
        lambda sketch: {"image_path": sketch.frame.init, "masked_image_path": sketch.frame.mask},
    )


def load_redux(model: Model) -> Painter:
    """References are read as a part of the prompt. Its encoders lie in a repository of their own, until saved."""
    encoders = model.also[0] if model.also else model.path

    def load_encoders(_: str | None) -> object:
        return WeightLoader.load(weight_definition=FluxReduxWeightDefinition, model_path=encoders)

    with swapped(FluxInitializer, "_load_redux_weights", staticmethod(load_encoders)):
        pipeline = built(model, Flux1Redux)
    return Flux1Painter(pipeline, lambda sketch: {"redux_image_paths": list(sketch.frame.references)})


class _FillPainter(Flux1Painter):
    @contextmanager
    def _begun(self, sketch: Sketch, sitting: Sitting) -> Iterator[None]:
        # The model itself knows what to keep, and wants nothing put back between its steps.
        start = None if sketch.plan.denoise >= 1 else sketch.frame.init
        with super()._begun(replace(sketch, frame=replace(sketch.frame, init=start, mask=None)), sitting):
            yield
