"""Pipeline of Lens Turbo as in mflux 0.24, from three repositories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS
from mflux.models.lens.model.text_encoder.lens_gpt_oss_encoder import _HARMONY_MARKER
from mflux.models.lens.model.text_encoder.lens_prompt_template import LENS_MAX_TOKENS
from mflux.models.lens.variants.txt2img import lens_image
from mflux.models.lens.variants.txt2img.lens_image import LensImage

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.loading import load_by_layer
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.patching import patched
from engine.pipelines.common.prompt_cache import PromptCache
from engine.pipelines.flux2_latents import PackedLatents
from engine.prompt_tokens import Encoder, Span, TokenEncoder


class Lens(LensImage):
    """mflux pipeline with the interface of mflux's other pipelines."""

    def parameters(self) -> dict[str, Any]:
        """Parameters of all parts."""
        parts = {"text_encoder": self.text_encoder.model, "transformer": self.transformer, "vae": self.vae}
        return {name: part.parameters() for name, part in parts.items() if part is not None}


def load(model: Model) -> Pipeline:
    """Load Lens, with a prompt cache, which mflux lacks for this family."""
    encoder, vae = model.also or (None, lens_image.VAE_REPO)
    with patched(lens_image, "VAE_REPO", vae):
        config = AVAILABLE_MODELS[model.spec.geometry]
        arguments = {"model_path": model.path, "quantize": model.quantize, "model_config": config}
        pipeline = load_by_layer(lambda: Lens(**arguments, encoder_path=encoder), whole=model.prompt_key is None)
    encode = pipeline.text_encoder.encode
    prompts = PromptCache(lambda text: (encode(text),))
    pipeline.text_encoder.encode = lambda text: prompts.encode(text)[0]
    return OwnLoopPipeline(
        pipeline,
        layout=PackedLatents(pipeline.vae, noise, tokens=True),
        sigmas=lambda steps, width, height: pipeline._turbo_sigmas((width // 16) * (height // 16), steps),
        arguments=lambda plan: {},
        encoder=_encoder(pipeline.text_encoder),
    )


def _encoder(text_encoder: Any) -> Encoder:
    """Encoder of prompts. mflux cuts the bare prompt to leave room for its template, and blanks out markers in it."""

    def spans(text: str) -> Sequence[Span]:
        return cast(Sequence[Span], text_encoder.tokenizer.encode(text, add_special_tokens=False).offsets)

    room = LENS_MAX_TOKENS - len(text_encoder._template_ids(""))
    return TokenEncoder(spans, room, lambda text: _HARMONY_MARKER.sub(" ", text))


def noise(seed: int, height: int, width: int) -> mx.array:
    """Initial noise of mflux's loop."""
    mx.random.seed(seed)
    return mx.random.normal((1, (width // 16) * (height // 16), 128), dtype=mx.float32).astype(mx.bfloat16)
