"""Qwen-Image and Qwen-Image-Edit as mflux 0.24 spells them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from mflux.models.qwen.latent_creator.qwen_latent_creator import QwenLatentCreator
from mflux.models.qwen.variants.edit.qwen_image_edit import QwenImageEdit
from mflux.models.qwen.variants.txt2img.qwen_image import QwenImage
from PIL.Image import Image

from engine.backends.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduled
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import built
from engine.pipelines.common.prompt_cache import Encoding, FewPrompts
from engine.pipelines.common.standard_loop import StandardPipeline
from engine.prompt_tokens import of_language
from engine.protocol import Generate

SCHEDULER = "linear"


def load(model: Model) -> Pipeline:
    """Its prompts remembered as mflux does it, but not all."""
    if model.spec.geometry.startswith("qwen-image-edit"):
        return _load_edit(model)
    pipeline = built(model, QwenImage)
    pipeline.prompt_cache = FewPrompts()
    encoder = of_language(pipeline.tokenizers["qwen"])
    return StandardPipeline(pipeline, loras="qwen", scheduler=SCHEDULER, arguments=_arguments, encoder=encoder)


def _load_edit(model: Model) -> Pipeline:
    """mflux cuts nothing of a prompt that goes with pictures."""
    pipeline = built(model, QwenImageEdit)
    pipeline._encode_prompts_with_images = _Seen(pipeline._encode_prompts_with_images)
    return OwnLoopPipeline(
        pipeline,
        layout=QwenLatentCreator,
        sigmas=scheduled(pipeline, SCHEDULER),
        arguments=lambda plan: {"scheduler": SCHEDULER, **_arguments(plan)},
        loras="qwen",
        pictures=lambda task: {"image_paths": list(task.frame.references)},
    )


def _arguments(plan: Generate) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}


class _Seen:
    """In the place of the pipeline's `_encode_prompts_with_images`: remembers the last few prompts with pictures."""

    def __init__(self, encode: Callable[..., Encoding]) -> None:
        self._encode = encode
        self._known = FewPrompts(most=4)

    def __call__(
        self, *, prompt: str, negative_prompt: str | None, image_paths: Sequence[Image], **sizes: Any
    ) -> Encoding:
        digest = hashlib.sha256(repr((prompt, negative_prompt, [image.size for image in image_paths])).encode())
        for image in image_paths:
            digest.update(image.tobytes())
        key = digest.hexdigest()
        if key not in self._known:
            said = {"prompt": prompt, "negative_prompt": negative_prompt, "image_paths": image_paths}
            self._known[key] = self._encode(**said, **sizes)
        return self._known[key]
