"""Pipelines of Qwen-Image and Qwen-Image-Edit as in mflux 0.24."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from mflux.models.qwen.latent_creator.qwen_latent_creator import QwenLatentCreator
from mflux.models.qwen.variants.edit.qwen_image_edit import QwenImageEdit
from mflux.models.qwen.variants.txt2img.qwen_image import QwenImage
from PIL.Image import Image

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache, Encoding
from engine.pipelines.common.standard_loop import StandardPipeline
from engine.prompt_tokens import language_encoder
from engine.protocol import Generate

SCHEDULER = "linear"


def load(model: Model) -> Pipeline:
    """Load Qwen-Image, with a bounded prompt cache in place of mflux's."""
    if model.spec.geometry.startswith("qwen-image-edit"):
        return _load_edit(model)
    pipeline = build_pipeline(model, QwenImage)
    pipeline.prompt_cache = BoundedPromptCache()
    encoder = language_encoder(pipeline.tokenizers["qwen"])
    return StandardPipeline(pipeline, loras="qwen", scheduler=SCHEDULER, arguments=_arguments, encoder=encoder)


def _load_edit(model: Model) -> Pipeline:
    """Load Qwen-Image-Edit. mflux does not cut prompts that go with images."""
    pipeline = build_pipeline(model, QwenImageEdit)
    pipeline._encode_prompts_with_images = _CachedImagePrompts(pipeline._encode_prompts_with_images)
    return OwnLoopPipeline(
        pipeline,
        layout=QwenLatentCreator,
        sigmas=scheduler_sigmas(pipeline, SCHEDULER),
        arguments=lambda plan: {"scheduler": SCHEDULER, **_arguments(plan)},
        loras="qwen",
        image_arguments=lambda task: {"image_paths": list(task.frame.references)},
    )


def _arguments(plan: Generate) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}


class _CachedImagePrompts:
    """Replacement for the pipeline's `_encode_prompts_with_images`: caches the last few prompts with their images."""

    def __init__(self, encode: Callable[..., Encoding]) -> None:
        self._encode = encode
        self._known = BoundedPromptCache(most=4)

    def __call__(
        self, *, prompt: str, negative_prompt: str | None, image_paths: Sequence[Image], **sizes: Any
    ) -> Encoding:
        digest = hashlib.sha256(repr((prompt, negative_prompt, [image.size for image in image_paths])).encode())
        for image in image_paths:
            digest.update(image.tobytes())
        key = digest.hexdigest()
        if key not in self._known:
            arguments = {"prompt": prompt, "negative_prompt": negative_prompt, "image_paths": image_paths}
            self._known[key] = self._encode(**arguments, **sizes)
        return self._known[key]
