"""How one picture is painted by any pipeline of mflux; what differs between families is left to them."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
from PIL.Image import Image

from engine.backends.base import Model, Watcher, prompt_key
from engine.backends.canvas import opaque
from engine.pipelines.common.base import ImageTask
from engine.pipelines.common.denoising import DenoisingRun, StepCallback, StepsSkipped
from engine.pipelines.common.finite import check_finite, check_pixels
from engine.pipelines.common.loading import load_by_layer
from engine.pipelines.common.lora_stack import LoraStack
from engine.pipelines.common.low_memory import low_memory_decoding
from engine.pipelines.common.noise import img2img_schedule
from engine.pipelines.common.preview_size import PreviewSize
from engine.pipelines.common.text_encoders import TextEncoders
from engine.prompt_tokens import Encoder, read
from engine.protocol import Generate, PromptRead

log = logging.getLogger("engine.families")


def build_pipeline(model: Model, pipeline: Callable[..., Any], config: ModelConfig | None = None) -> Any:
    """A pipeline by the model's geometry in mflux's table: names are never guessed from, and paths are absolute."""
    config = config or AVAILABLE_MODELS[model.spec.geometry]
    arguments = {"model_path": model.path, "quantize": model.quantize, "model_config": config}
    return load_by_layer(lambda: pipeline(**arguments), whole=model.prompt_key is None)


class MfluxPipeline(ABC):
    """A pipeline with the one callback it ever gets: mflux has no unregister. `loras` is its name in the LoRA table;
    `encoder` says how much of a prompt it reads, without one it reads all.
    """

    def __init__(
        self,
        pipeline: Any,
        loras: str | None,
        transformer: str = "transformer",
        encoder: Encoder | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._encoder = encoder
        self._text_encoders = TextEncoders(pipeline)
        self._lora_stack = LoraStack(getattr(pipeline, transformer), loras)
        self._callback = StepCallback()
        self._preview_size = PreviewSize()
        pipeline.callbacks.register(self._callback)

    def generate(self, task: ImageTask, watcher: Watcher) -> Image:
        plan, frame = task.plan, task.frame
        key = prompt_key(plan)
        if key is None:
            self._lora_stack.apply(task.loras)
        else:
            self._text_encoders.load()
        self._report_prompts(task, watcher)
        width, height = frame.drawn
        steps, strength = plan.steps, None
        if frame.init is not None and plan.denoise < 1:
            steps, strength = img2img_schedule(plan.steps, plan.denoise, self._sigma_of(width, height))
        denoising = self._callback.denoising = DenoisingRun(watcher, frame, self._preview, steps, strength)
        if key is not None:
            denoising.on_prompt_encoded = lambda: self._release_encoders(key, task)
        try:
            with (
                check_pixels(),
                self._patch_loop(task, denoising),
                low_memory_decoding(self._pipeline, low_ram=plan.low_ram),
            ):
                made = self._pipeline.generate_image(
                    seed=task.seed,
                    prompt=self._prompt(task),
                    num_inference_steps=steps,
                    width=width,
                    height=height,
                    **self._image_arguments(task, strength),
                    **self._arguments(plan),
                )
            return opaque(made.image)
        except StepsSkipped as skipped:
            check_finite(skipped.clean_latents, "latents")
            watcher.decoding()
            with check_pixels():
                return opaque(self._decode(skipped.clean_latents, height, width))
        finally:
            self._callback.denoising = None

    def can_read(self, prompt_key: str | None) -> bool:
        """Whether a picture can be drawn of what `prompt_key` says of its plan; None stands for all others."""
        return self._text_encoders.can_read(prompt_key)

    def keep_encoders(self) -> None:
        """They stay in any case."""
        self._text_encoders = TextEncoders(self._pipeline, ())

    def _release_encoders(self, key: str, task: ImageTask) -> None:
        """The prompt is encoded, and the steps begin."""
        self._text_encoders.release(key)
        self._lora_stack.apply(task.loras)

    def save(self, folder: str) -> None:
        self._lora_stack.apply(())  # mflux would bake them in
        self._pipeline.save_model(folder)

    def _preview(self, clean: mx.array, config: Any, step_s: float) -> Image:
        began = time.monotonic()
        check_finite(clean, "latents")
        image = opaque(self._decode(clean, config.height, config.width, small_px=self._preview_size.px))
        self._preview_size.learn(time.monotonic() - began, step_s)
        return image

    def _prompt(self, task: ImageTask) -> str:
        """What the pipeline is given: `_known_prompt`, and what the family puts before it."""
        return self._known_prompt(task)[0]

    def _known_prompt(self, task: ImageTask) -> tuple[str, tuple[str, ...]]:
        """What of the plan's prompt the pipeline is given, and the words of it that are left away as unknown."""
        return task.plan.prompt, ()

    def _encoder_of(self, task: ImageTask) -> Encoder | None:
        """What reads the prompt of this picture; a negative one is always read by the usual encoder."""
        return self._encoder

    def _report_prompts(self, task: ImageTask, watcher: Watcher) -> None:
        try:
            readings = list(self._prompt_readings(task))
        except Exception:  # a tokenizer of another kind: no picture is lost for a note about it
            log.exception("how the prompt is read cannot be told")
            return
        for reading in readings:
            watcher.read(reading)

    def _prompt_readings(self, task: ImageTask) -> Iterator[PromptRead]:
        """How the prompts of this picture are read, where something is left out."""
        plan, (text, unknown) = task.plan, self._known_prompt(task)
        if (found := read(self._encoder_of(task), "prompt", self._prompt(task), text, unknown)) is not None:
            yield found
        negative = plan.negative_prompt if plan.guidance > 1 else None
        if negative and (found := read(self._encoder, "negative_prompt", negative, negative)) is not None:
            yield found

    def _image_arguments(self, task: ImageTask, strength: float | None) -> Mapping[str, Any]:
        """What of a sketch's pictures `generate_image` takes; `strength` is set where it begins late."""
        # Only its presence counts: it makes the schedule begin late. The family encodes the picture.
        return {"image_path": task.frame.init if strength is not None else None, "image_strength": strength}

    @abstractmethod
    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        """What of a plan `generate_image` takes besides the usual."""

    @abstractmethod
    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        """Share of noise by scheduler steps and step, as `img2img_schedule` wants it."""

    @abstractmethod
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> AbstractContextManager[None]:
        """For the time of one picture the pipeline begins as the sketch asks."""

    @abstractmethod
    def _decode(self, clean: mx.array, height: int, width: int, *, small_px: int | None = None) -> Image:
        """The picture of clean latents in the loop's layout; for a preview one whose longest side is `small_px`."""
