"""Pipeline of Iris-3B, Turbo and base, as in mflux 0.24. It generates pixels without a VAE, so there is no img2img."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS
from mflux.models.iris.latent_creator.iris_latent_creator import IrisLatentCreator
from mflux.models.iris.model.iris_scheduler.iris_flow_dpm_solver import IrisFlowDPMSolver
from mflux.models.iris.model.iris_scheduler.iris_turbo_scheduler import IrisTurboScheduler
from mflux.models.iris.model.iris_text_encoder.prompt_encoder import IrisPromptEncoder
from mflux.models.iris.variants import Iris
from mflux.models.iris.weights.iris_weight_definition import IrisWeightDefinition
from PIL.Image import Image

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.finite import to_image
from engine.pipelines.common.initial_latents import Sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.prompt_tokens import Encoder, tokenizer_encoder


def load(model: Model) -> Pipeline:
    """Load Iris: Turbo with its four steps, base with guidance."""
    pipeline = _build(model)
    pipeline.prompt_cache = BoundedPromptCache()
    sigmas = _turbo if pipeline.is_turbo else _base
    layout, encoder = cast(Any, IrisLatentCreator), _encoder(pipeline.tokenizers["qwen3_vl"].tokenizer)
    return IrisPipeline(pipeline, layout=layout, sigmas=sigmas, arguments=_arguments, encoder=encoder)


def _build(model: Model) -> Any:
    if (Path(model.path) / "text_encoder").is_dir():
        return build_pipeline(model, Iris)
    # A model that mflux has not saved itself is read only from the places in mflux's table: the gateway's folders are
    # put there.
    placed = copy(AVAILABLE_MODELS[model.spec.geometry])
    placed.model_name = model.path
    with patched(IrisWeightDefinition, "TEXT_ENCODER_REPO", next(iter(model.also), model.path)):
        return build_pipeline(model, Iris, placed)


def _encoder(tokenizer: Any) -> Encoder:
    """Encoder of prompts. mflux cuts the bare prompt to leave room for the end of its template."""
    after = tokenizer.encode(IrisPromptEncoder.SUFFIX, add_special_tokens=False)
    return tokenizer_encoder(tokenizer, IrisPromptEncoder.MAX_LENGTH - len(after), special=False)


def _arguments(plan: Any) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}


class IrisPipeline(OwnLoopPipeline):
    """Pipeline whose loop works on pixels."""

    def _decode(self, clean: mx.array, height: int, width: int, *, small_px: int | None = None) -> Image:
        return to_image(mx.clip(clean, -1, 1))


_turbo: Sigmas = lambda steps, width, height: (*IrisTurboScheduler.SIGMAS, 0.0)  # noqa: E731
_base: Sigmas = lambda steps, width, height: IrisFlowDPMSolver(steps, Iris.SHIFT).grid  # noqa: E731
