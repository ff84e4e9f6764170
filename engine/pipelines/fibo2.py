"""Pipeline of FIBO 2 as in mflux 0.24. One set of weights generates and edits, from JSON captions or short plain text.

The separate model that writes captions is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx
from mflux.models.common.config.config import Config
from mflux.models.common.schedulers.flow_match_euler_discrete_scheduler import FlowMatchEulerDiscreteScheduler
from mflux.models.fibo2.latent_creator.fibo2_latent_creator import Fibo2LatentCreator
from mflux.models.fibo2.model.fibo2_text_encoder.fibo2_caption_check import Fibo2CaptionCheck
from mflux.models.fibo2.model.fibo2_text_encoder.prompt_encoder import Fibo2PromptEncoder
from mflux.models.fibo2.variants import Fibo2
from mflux.models.fibo2.variants.edit.fibo2_edit_images import Fibo2EditImages
from PIL.Image import Image

from engine.drawing.base import BackendError, Model
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.initial_latents import Sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.prompt_tokens import Encoder, tokenizer_encoder

IMAGE = "<|image_pad|>"
"""Placeholder token in a prompt for each part of an image that the encoder reads."""


class Fibo(Fibo2):
    """mflux pipeline whose `generate_image` generates, or edits where there are reference images."""

    def generate_image(
        self, *, prompt: str, height: int, width: int, references: Sequence[Image] = (), **kwargs: Any
    ) -> Any:
        """The image. Raises: BackendError("bad_input") for an invalid caption."""
        try:
            Fibo2CaptionCheck.check(prompt, edit=bool(references))
        except ValueError as error:
            raise BackendError("bad_input", "The prompt is not a caption that FIBO 2 reads.") from error
        if not references:
            return self._generate(prompt=prompt, height=height, width=width, **kwargs)
        images, seen, _ = Fibo2EditImages.prepare(cast(Any, list(references)), width, height)
        return self._generate(
            prompt=prompt, height=height, width=width, images=images, text_encoder_images=seen, **kwargs
        )


def load(model: Model) -> Pipeline:
    """Load FIBO 2, with a bounded prompt cache in place of mflux's."""
    pipeline = build_pipeline(model, Fibo)
    pipeline.prompt_cache = BoundedPromptCache()
    return Fibo2Pipeline(
        pipeline,
        layout=Fibo2Latents(pipeline.vae),
        sigmas=schedule(pipeline),
        loras="fibo2",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        references=True,
        encoder=_encoder(pipeline, Fibo2PromptEncoder.format_prompt),
    )


def _encoder(pipeline: Any, form: Callable[[str], str]) -> Encoder:
    """Encoder of prompts formatted by `form`. Rendered text that a caption asks for is not counted."""
    limit = Fibo2PromptEncoder.MAX_LENGTH
    return tokenizer_encoder(
        pipeline.processor.tokenizer, limit, lambda text: Fibo2PromptEncoder.PROMPT_TEMPLATE.format(form(text))
    )


class Fibo2Pipeline(OwnLoopPipeline):
    """Pipeline whose encoder reads the reference images before the prompt: they use tokens of the same limit."""

    def _encoder_of(self, task: ImageTask) -> Encoder | None:
        references, (width, height) = task.frame.references, task.frame.drawn
        if not references:
            return self._encoder
        images = self._pipeline.processor.image_processor
        _, seen, _ = Fibo2EditImages.prepare(cast(Any, list(references)), width, height)
        tokens = [images.get_number_of_image_patches(one.height, one.width) // images.merge_size**2 for one in seen]

        def form(text: str) -> str:
            before, *between = Fibo2PromptEncoder.edit_prompt(text, len(tokens)).split(IMAGE)
            return before + "".join(IMAGE * count + part for count, part in zip(tokens, between, strict=False))

        return _encoder(self._pipeline, form)


class Fibo2Latents:
    """Latents (1, 32, rows, columns), normalised; one for 8x8 pixels. Sizes in pixels."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    def create_noise(self, seed: int, height: int, width: int) -> mx.array:
        """Initial noise of mflux's loop."""
        return Fibo2LatentCreator.create_noise(seed, height, width)

    def pack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the VAE in the loop's layout."""
        return self._vae.normalize_latents(Fibo2LatentCreator.pack_latents(latents))

    def unpack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the loop in the VAE's layout."""
        return self._vae.unpack_packed_latents(Fibo2LatentCreator.unpack_latents(latents, height, width))


def schedule(pipeline: Any) -> Sigmas:
    """Noise schedule of mflux with this family's shift."""

    def sigmas(steps: int, width: int, height: int) -> list[float]:
        config = Config(
            model_config=pipeline.model_config,
            num_inference_steps=steps,
            width=width,
            height=height,
            scheduler="flow_match_euler_discrete",
        )
        config.scheduler.set_mu(FlowMatchEulerDiscreteScheduler._compute_linear_mu(config.image_seq_len))
        return cast(list[float], config.scheduler.sigmas.tolist())

    return sigmas
