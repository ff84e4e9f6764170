"""How one picture is painted by any pipeline of mflux; what differs between families is left to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
from mflux.models.common.lora.mapping.lora_mapping import LoRATarget
from PIL.Image import Image

from engine.backends.base import Model, Watcher, said_by
from engine.backends.canvas import opaque
from engine.families.base import Sketch
from engine.families.encoders import Encoders
from engine.families.loading import loaded
from engine.families.loras import Wardrobe
from engine.families.low_ram import sparing
from engine.families.noise import img2img_schedule
from engine.families.sitting import Observer, Sitting, Unfinished
from engine.protocol import Generate


def built(model: Model, pipeline: Callable[..., Any], config: ModelConfig | None = None) -> Any:
    """A pipeline by the model's geometry in mflux's table: names are never guessed from, and paths are absolute."""
    config = config or AVAILABLE_MODELS[model.spec.geometry]
    given = {"model_path": model.path, "quantize": model.quantize, "model_config": config}
    return loaded(lambda: pipeline(**given), whole=model.said is None)


class PipelinePainter(ABC):
    """A pipeline with the one callback it ever gets: mflux has no unregister."""

    def __init__(self, pipeline: Any, loras: list[LoRATarget], transformer: str = "transformer") -> None:
        self._pipeline = pipeline
        self._encoders = Encoders(pipeline)
        self._wardrobe = Wardrobe(getattr(pipeline, transformer), loras)
        self._observer = Observer()
        pipeline.callbacks.register(self._observer)

    def paint(self, sketch: Sketch, watcher: Watcher) -> Image:
        plan, frame = sketch.plan, sketch.frame
        said = said_by(plan)
        if said is None:
            self._wardrobe.wear(sketch.loras)
        else:
            self._encoders.take()
        width, height = frame.drawn
        steps, strength = plan.steps, None
        if frame.init is not None and plan.denoise < 1:
            steps, strength = img2img_schedule(plan.steps, plan.denoise, self._sigma_of(width, height))
        sitting = self._observer.sitting = Sitting(watcher, frame, self._preview, steps, strength)
        if said is not None:
            sitting.encoded = lambda: self._let_go(said, sketch)
        try:
            with self._begun(sketch, sitting), sparing(self._pipeline, low_ram=plan.low_ram):
                made = self._pipeline.generate_image(
                    seed=sketch.seed,
                    prompt=self._prompt(sketch),
                    num_inference_steps=steps,
                    width=width,
                    height=height,
                    **self._pictures(sketch, strength),
                    **self._arguments(plan),
                )
            return opaque(made.image)
        except Unfinished as unfinished:
            watcher.decoding()
            return opaque(self._decoded(unfinished.clean, height, width))
        finally:
            self._observer.sitting = None

    def reads(self, said: str | None) -> bool:
        """Whether a picture can be drawn of what `said_by` says of its plan; None stands for all others."""
        return self._encoders.read(said)

    def keep_encoders(self) -> None:
        """They stay in any case."""
        self._encoders = Encoders(self._pipeline, ())

    def _let_go(self, said: str, sketch: Sketch) -> None:
        """The prompt is encoded, and the steps begin."""
        self._encoders.let_go(said)
        self._wardrobe.wear(sketch.loras)

    def save(self, folder: str) -> None:
        self._wardrobe.wear(())  # mflux would bake them in
        self._pipeline.save_model(folder)

    def _preview(self, clean: mx.array, config: Any) -> Image:
        return opaque(self._decoded(clean, config.height, config.width, small=True))

    def _prompt(self, sketch: Sketch) -> str:
        return sketch.plan.prompt

    def _pictures(self, sketch: Sketch, strength: float | None) -> Mapping[str, Any]:
        """What of a sketch's pictures `generate_image` takes; `strength` is set where it begins late."""
        # Only its presence counts: it makes the schedule begin late. The family encodes the picture.
        return {"image_path": sketch.frame.init if strength is not None else None, "image_strength": strength}

    @abstractmethod
    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        """What of a plan `generate_image` takes besides the usual."""

    @abstractmethod
    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        """Share of noise by scheduler steps and step, as `img2img_schedule` wants it."""

    @abstractmethod
    def _begun(self, sketch: Sketch, sitting: Sitting) -> AbstractContextManager[None]:
        """For the time of one picture the pipeline begins as the sketch asks."""

    @abstractmethod
    def _decoded(self, clean: mx.array, height: int, width: int, *, small: bool = False) -> Image:
        """The picture of clean latents in the loop's layout; a small one is for a preview."""
