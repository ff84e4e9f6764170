"""Pipeline of Z-Image-Turbo with a ControlNet, which accepts control maps of any kind: `Frame.control`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mflux.models.z_image.latent_creator.z_image_latent_creator import ZImageLatentCreator
from mflux.models.z_image.model.z_image_text_encoder.prompt_encoder import PromptEncoder
from mflux.models.z_image.variants.controlnet import ControlSpec, ControlType, ZImageTurboControlnet
from mflux.models.z_image.variants.controlnet.controlnet_util import ZImageControlnetUtil

from engine.drawing.base import Model
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.controlnet import config_with_controlnet
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import CachedEncoder
from engine.prompt_tokens import language_encoder

SCHEDULER = "linear"


def load(model: Model) -> Pipeline:
    """Load Z-Image-Turbo with its ControlNet, which shares the embedders and refiners of the transformer."""
    pipeline = build_pipeline(model, ZImageTurboControlnet, config_with_controlnet(model))
    return _ControlnetPipeline(
        pipeline,
        layout=ZImageLatentCreator,
        sigmas=scheduler_sigmas(pipeline, SCHEDULER),
        # Only the strength of the control itself counts.
        arguments=lambda plan: {"scheduler": SCHEDULER, "controlnet_strength": 1.0},
        loras="z_image",
        image_arguments=_control_arguments,
        encoder=language_encoder(pipeline.tokenizers["z_image"]),
    )


def _control_arguments(task: ImageTask) -> dict[str, Any]:
    control = task.plan.control
    assert control is not None
    spec = ControlSpec(type=ControlType(control.kind), image_path=task.frame.control, strength=control.strength)
    return {"controls": [spec]}


class _ControlnetPipeline(OwnLoopPipeline):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._encode = CachedEncoder(PromptEncoder.encode_prompt)

    def save(self, folder: str) -> None:
        super().save(folder)
        # mflux does not save the ControlNet's config, and would assume that of Union 2.1 for any folder.
        config = asdict(self._pipeline.controlnet.config)
        sizes = {f"all_{name}": [config.pop(name)] for name in ("patch_size", "f_patch_size")}
        (Path(folder) / "controlnet" / "config.json").write_text(json.dumps(config | sizes))

    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        ready = staticmethod(lambda image, kind: image)
        remembered = patched(PromptEncoder, "encode_prompt", staticmethod(self._encode))
        with patched(ZImageControlnetUtil, "_preprocess", ready), remembered, super()._patch_loop(task, denoising):
            yield
