"""Pipelines of FIBO, FIBO Lite and FIBO Edit as in mflux 0.24. Prompts are JSON captions.

Plain text becomes the short description of a caption, or its edit instruction. The separate model that writes captions
is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mflux.models.common.weights.loading.weight_loader import WeightLoader
from mflux.models.fibo.latent_creator.fibo_latent_creator import FiboLatentCreator
from mflux.models.fibo.model.fibo_text_encoder.prompt_encoder import PromptEncoder
from mflux.models.fibo.variants.edit.fibo_edit import FIBOEdit
from mflux.models.fibo.variants.edit.util import FIBO_EDIT_RMBG_DEFAULT_EDIT_INSTRUCTION, FiboEditUtil
from mflux.models.fibo.variants.txt2img.fibo import FIBO
from PIL.Image import Image

from engine.drawing.base import BackendError, Model, Watcher
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import MfluxPipeline, build_pipeline
from engine.pipelines.common.prompt_cache import CachedEncoder
from engine.pipelines.common.standard_loop import StandardPipeline
from engine.pipelines.fibo2 import schedule
from engine.prompt_tokens import language_encoder
from engine.protocol import Generate

SCHEDULER = "flow_match_euler_discrete"
"""mflux's default scheduler."""
MATTE = "fibo-edit-rmbg"
TEXT_TOKENS = 2048
"""Token limit that mflux passes on, whatever the tokenizer says."""


def load(model: Model) -> Pipeline:
    """Load FIBO. mflux reads these weights with PyTorch, only to convert bfloat16 to float16."""
    edits = model.spec.needs_reference
    with patched(WeightLoader, "_load_torch_convert", staticmethod(load_float16)):
        pipeline = build_pipeline(model, FIBOEdit if edits else FIBO)
    encoder = language_encoder(pipeline.tokenizers["fibo"], TEXT_TOKENS)
    if not edits:
        return FiboPipeline(pipeline, loras=None, scheduler=SCHEDULER, arguments=_arguments, encoder=encoder)
    return FiboEditPipeline(
        pipeline,
        layout=FiboLatentCreator,
        sigmas=schedule(pipeline),
        arguments=lambda plan: {"scheduler": SCHEDULER, **_arguments(plan)},
        image_arguments=lambda task: {"image_path": task.frame.references[0]},
        encoder=encoder,
    )


def load_float16(path: Path, weight_files: list[str] | None = None) -> dict[str, mx.array]:
    """Weights of the files as mflux converts them with PyTorch: bfloat16 becomes float16."""
    weights = WeightLoader._load_mlx_native(path, weight_files)
    return {name: value.astype(mx.float16) if value.dtype == mx.bfloat16 else value for name, value in weights.items()}


class _CachingPipeline(MfluxPipeline):
    """Pipeline with a prompt cache, which mflux lacks for this family."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._encode = CachedEncoder(PromptEncoder._get_prompt_embeds)

    def denoise(self, task: ImageTask, watcher: Watcher) -> Callable[[], Image]:
        with patched(PromptEncoder, "_get_prompt_embeds", staticmethod(self._encode)):
            return super().denoise(task, watcher)


class FiboPipeline(_CachingPipeline, StandardPipeline):
    """Pipeline that turns prompts into captions."""

    def _prompt(self, task: ImageTask) -> str:
        return caption_of(task.plan.prompt, "short_description")


class FiboEditPipeline(_CachingPipeline, OwnLoopPipeline):
    """Pipeline that turns prompts into edit instructions; the one that mattes has a default instruction. Raises:
    BackendError("bad_input").
    """

    def _prompt(self, task: ImageTask) -> str:
        prompt = task.plan.prompt
        if self._pipeline.model_config.aliases[0] == MATTE and not prompt.strip():
            prompt = FIBO_EDIT_RMBG_DEFAULT_EDIT_INSTRUCTION
        caption = caption_of(prompt, "edit_instruction")
        try:
            return FiboEditUtil.ensure_edit_instruction(caption)
        except ValueError as error:
            raise BackendError("bad_input", "The prompt is a caption without edit_instruction.") from error


def caption_of(prompt: str, field: str) -> str:
    """The prompt where it is a caption, else a caption with the prompt in this field."""
    try:
        caption = json.loads(prompt)
    except (ValueError, RecursionError):
        caption = None
    return prompt if isinstance(caption, dict) and caption else json.dumps({field: prompt}, ensure_ascii=False)


def _arguments(plan: Generate) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}
