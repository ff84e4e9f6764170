"""Pipeline of FLUX.3 Klein, distilled and base, as in mflux 0.24. One set of weights generates and edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mflux.models.flux3.latent_creator.flux3_latent_creator import Flux3LatentCreator
from mflux.models.flux3.latent_creator.flux3_reference_images import Flux3ReferenceImages
from mflux.models.flux3.model.flux3_scheduler.flux3_flow_map_scheduler import Flux3FlowMapScheduler
from mflux.models.flux3.model.flux3_text_encoder.prompt_encoder import Flux3PromptEncoder
from mflux.models.flux3.variants import Flux3KleinEdit
from PIL.Image import Image

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.pipelines.flux2_latents import PackedLatents
from engine.prompt_tokens import language_encoder


class Klein(Flux3KleinEdit):
    """mflux pipeline whose `generate_image` accepts reference images, or none."""

    def generate_image(self, *, references: Sequence[Image] = (), **kwargs: Any) -> Any:
        """The image, at the requested size whatever the size of the reference images."""
        tokens = ids = None
        if references:
            prepared, _ = Flux3ReferenceImages.prepare(list(references), crop_to_fit=False)
            tokens, ids = self.encode_references(prepared)
        return self._generate(cond_tokens=tokens, cond_ids=ids, **kwargs)


def load(model: Model) -> Pipeline:
    """Load FLUX.3 Klein. It has its own noise schedule, which does not depend on the size."""
    pipeline = build_pipeline(model, Klein)
    pipeline.prompt_cache = BoundedPromptCache()
    return OwnLoopPipeline(
        pipeline,
        layout=PackedLatents(pipeline.vae, Flux3LatentCreator.create_noise, tokens=True),
        sigmas=lambda steps, width, height: Flux3FlowMapScheduler(steps).timesteps.tolist(),
        loras="flux3",
        arguments=lambda plan: {"guidance": plan.guidance},
        references=True,
        encoder=language_encoder(pipeline.tokenizers["qwen3_vl"], Flux3PromptEncoder.MAX_LENGTH),
    )
