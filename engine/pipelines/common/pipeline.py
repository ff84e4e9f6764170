"""Base class of the pipelines: how any pipeline of mflux generates an image. Families fill in the differences."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
from PIL.Image import Image

from engine.drawing.base import Model, Watcher, prompt_key
from engine.drawing.canvas import opaque
from engine.pipelines.common.base import ImageTask
from engine.pipelines.common.denoising import DenoisingRun, StepCallback, StepsDone
from engine.pipelines.common.finite import check_finite
from engine.pipelines.common.loading import load_by_layer
from engine.pipelines.common.lora_stack import LoraStack
from engine.pipelines.common.low_memory import low_memory_decoding
from engine.pipelines.common.noise import img2img_schedule
from engine.pipelines.common.preview_size import PreviewSize
from engine.pipelines.common.text_encoders import TextEncoders
from engine.prompt_tokens import Encoder, read_prompt
from engine.protocol import Generate, PromptRead

log = logging.getLogger("engine.families")


def build_pipeline(model: Model, pipeline: Callable[..., Any], config: ModelConfig | None = None) -> Any:
    """mflux pipeline for a model, by its geometry in mflux's table. Names are not used for guessing; paths are
    absolute.
    """
    config = config or AVAILABLE_MODELS[model.spec.geometry]
    arguments = {"model_path": model.path, "quantize": model.quantize, "model_config": config}
    return load_by_layer(lambda: pipeline(**arguments), whole=model.prompt_key is None)


class MfluxPipeline(ABC):
    """Pipeline of mflux with its one callback: mflux cannot unregister callbacks. `loras` is its name in the LoRA
    table. `encoder` knows how much of a prompt is encoded; None: all of it.
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
        """Generate an image. Raises: as `denoise`."""
        return self.denoise(task, watcher)()

    def denoise(self, task: ImageTask, watcher: Watcher) -> Callable[[], Image]:
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
            return lambda: opaque(made.image)
        except StepsDone as done:
            return partial(self._decode_whole, done.latents, height, width, low_ram=plan.low_ram)
        finally:
            self._callback.denoising = None

    def _decode_whole(self, latents: mx.array, height: int, width: int, *, low_ram: bool) -> Image:
        """Decode denoised latents in the loop's layout. Raises: NotFinite."""
        with low_memory_decoding(self._pipeline, low_ram=low_ram):
            return opaque(self._decode(latents, height, width))

    def can_read(self, prompt_key: str | None) -> bool:
        """Whether an image with this `prompt_key` can be generated; None stands for all plans without a key."""
        return self._text_encoders.can_read(prompt_key)

    def keep_encoders(self) -> None:
        """Never release the text encoders."""
        self._text_encoders = TextEncoders(self._pipeline, ())

    def _release_encoders(self, key: str, task: ImageTask) -> None:
        """Called when the prompt is encoded, before the first step."""
        self._text_encoders.release(key)
        self._lora_stack.apply(task.loras)

    def save(self, folder: str) -> None:
        self._lora_stack.apply(())  # mflux would merge them into the weights
        self._pipeline.save_model(folder)

    def _preview(self, clean: mx.array, config: Any, step_s: float) -> Image:
        began = time.monotonic()
        check_finite(clean, "latents")
        image = opaque(self._decode(clean, config.height, config.width, small_px=self._preview_size.px))
        self._preview_size.learn(time.monotonic() - began, step_s)
        return image

    def _prompt(self, task: ImageTask) -> str:
        """Prompt passed to the pipeline: `_known_prompt`, and what the family puts before it."""
        return self._known_prompt(task)[0]

    def _known_prompt(self, task: ImageTask) -> tuple[str, tuple[str, ...]]:
        """The part of the plan's prompt that is passed to the pipeline, and its unknown words, which are left out."""
        return task.plan.prompt, ()

    def _encoder_of(self, task: ImageTask) -> Encoder | None:
        """Encoder of this image's prompt; a negative prompt always goes to the default encoder."""
        return self._encoder

    def _report_prompts(self, task: ImageTask, watcher: Watcher) -> None:
        try:
            readings = list(self._prompt_readings(task))
        except Exception:  # a tokenizer of another kind: a missing report must not fail the image
            log.exception("how the prompt is read cannot be told")
            return
        for reading in readings:
            watcher.report_prompt(reading)

    def _prompt_readings(self, task: ImageTask) -> Iterator[PromptRead]:
        """Prompts of this image that are not encoded completely."""
        plan, (text, unknown) = task.plan, self._known_prompt(task)
        if (found := read_prompt(self._encoder_of(task), "prompt", self._prompt(task), text, unknown)) is not None:
            yield found
        negative = plan.negative_prompt if plan.guidance > 1 else None
        if negative and (found := read_prompt(self._encoder, "negative_prompt", negative, negative)) is not None:
            yield found

    def _image_arguments(self, task: ImageTask, strength: float | None) -> Mapping[str, Any]:
        """Image arguments of `generate_image`; `strength` is set for img2img."""
        # Only its presence counts: it makes the schedule begin late. The family encodes the image.
        return {"image_path": task.frame.init if strength is not None else None, "image_strength": strength}

    @abstractmethod
    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        """Further arguments of `generate_image` from a plan."""

    @abstractmethod
    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        """Share of noise by scheduler steps and step, for `img2img_schedule`."""

    @abstractmethod
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> AbstractContextManager[None]:
        """Context in which mflux's loop begins with the initial latents of the task."""

    @abstractmethod
    def _decode(self, clean: mx.array, height: int, width: int, *, small_px: int | None = None) -> Image:
        """Decode clean latents in the loop's layout to an image; with `small_px` (longest side) to a preview."""
