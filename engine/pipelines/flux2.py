"""Pipelines of FLUX.2 Klein as in mflux 0.24, and of the embedded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from mflux.models.common.schedulers.flow_match_euler_discrete_scheduler import FlowMatchEulerDiscreteScheduler
from mflux.models.flux2 import Flux2Klein
from mflux.models.flux2.latent_creator.flux2_latent_creator import Flux2LatentCreator
from mflux.models.flux2.model.flux2_transformer.flux2_kv_cache import Flux2KVCache
from mflux.models.flux2.variants.edit.flux2_klein_edit import Flux2KleinEdit
from mflux.models.flux2.variants.edit.flux2_klein_edit_helpers import _Flux2KleinEditHelpers
from PIL.Image import Image

from engine.drawing.base import Model
from engine.pipelines.common.base import ImageTask, Pipeline, key_of
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.finite import to_image
from engine.pipelines.common.latents import resize_latents, shrink_latents
from engine.pipelines.common.linear_preview import LinearPreview
from engine.pipelines.common.noise import shift_sigma, slerp
from engine.pipelines.common.pipeline import MfluxPipeline, build_pipeline
from engine.pipelines.common.prompt_cache import PromptCache
from engine.prompt_tokens import Encoder, language_encoder
from engine.protocol import Generate

TEXT_TOKENS = 512
"""Token limit that mflux passes on, whatever the tokenizer says."""


def load(model: Model) -> Pipeline:
    """Load FLUX.2 Klein."""
    pipeline = build_pipeline(model, Flux2Klein)
    return Flux2Pipeline(pipeline, language_encoder(pipeline.tokenizers["qwen3"], TEXT_TOKENS))


def load_tiny(model: Model) -> Pipeline:
    """Load the embedded model: the same pipeline with small parts."""
    from engine.pipelines import flux2_tiny

    pipeline = flux2_tiny.build(model.path, quantize=model.quantize)  # type: ignore[arg-type]
    encoder = language_encoder(pipeline.tokenizers["qwen3"], flux2_tiny.TEXT_TOKENS)
    preview = LinearPreview.of(Path(model.path), pipeline.vae)
    tiny = Flux2Pipeline(pipeline, encoder, flux2_tiny.styled_prompt, flux2_tiny.known_prompt, preview)
    tiny.keep_encoders()  # the prompt with its style differs for each seed
    return tiny


class Flux2Pipeline(MfluxPipeline):
    """Pipeline of FLUX.2 Klein with a prompt cache. `known_prompt` splits a plan's prompt into what the model knows and
    the other words; `styled_prompt` adds the style of an image; `preview` decodes previews in place of the VAE.
    """

    def __init__(
        self,
        pipeline: Any,
        encoder: Encoder,
        styled_prompt: Callable[[Generate, int], str] = lambda plan, _: plan.prompt,
        known_prompt: Callable[[Generate], tuple[str, tuple[str, ...]]] = lambda plan: (plan.prompt, ()),
        preview: LinearPreview | None = None,
    ) -> None:
        super().__init__(pipeline, "flux2", encoder=encoder)
        self._linear = preview
        self._styled_prompt = styled_prompt
        self._split_prompt = known_prompt
        pipeline._encode_prompt_pair = CachedPrompts(pipeline._encode_prompt_pair).pair

    def _prompt(self, task: ImageTask) -> str:
        return self._styled_prompt(task.plan.model_copy(update={"prompt": self._known_prompt(task)[0]}), task.image)

    def _known_prompt(self, task: ImageTask) -> tuple[str, tuple[str, ...]]:
        return self._split_prompt(task.plan)

    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        return {"guidance": plan.guidance}

    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        return partial(sigma_of, (width // 16) * (height // 16))

    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        hooks = Flux2Hooks(self._pipeline, task, denoising)
        self._pipeline._prepare_generation_latents = hooks.prepare
        self._pipeline._predict = hooks.predictor
        try:
            yield
        finally:
            del self._pipeline._prepare_generation_latents, self._pipeline._predict

    def _decode(self, clean: mx.array, height: int, width: int, *, small_px: int | None = None) -> Image:
        vae, tiling = self._pipeline.vae, self._pipeline.tiling_config
        if small_px is not None and self._linear is not None:
            return self._linear.render(clean, height // 16, width // 16)
        packed = _to_grid(clean, height // 16, width // 16)
        if small_px is not None:
            latents = shrink_latents(vae.unpack_packed_latents(packed), small_px)
            return to_image(vae.decode(latents))
        return to_image(vae.decode_packed_latents(packed, tiling_config=tiling))


def _to_grid(packed: mx.array, rows: int, columns: int) -> mx.array:
    """Latents (1, tokens, 128) as (1, 128, rows, columns)."""
    return packed.reshape(1, rows, columns, packed.shape[-1]).transpose(0, 3, 1, 2)


class Flux2Hooks:
    """Hooks for two methods of mflux's text-to-image loop, for the time of one image: subseeds, img2img, a mask, and
    reference images. Latents are packed: (1, tokens, 128), a token for 16x16 pixels.
    """

    def __init__(self, pipeline: Any, task: ImageTask, denoising: DenoisingRun) -> None:
        self._pipeline = pipeline
        self._task = task
        self._denoising = denoising
        self._clean: mx.array | None = None
        frame = task.frame
        self._repaint = None if frame.mask is None else packed_repaint_mask(frame.mask)

    def prepare(self, *, seed: int, config: Any) -> tuple[mx.array, mx.array, int, int]:
        """Replacement for `_prepare_generation_latents`: the initial latents."""
        plan, frame = self._task.plan, self._task.frame
        size = {"height": config.height, "width": config.width, "batch_size": 1}
        noise, *grid = Flux2LatentCreator.prepare_packed_latents(seed=seed, **size)
        if plan.subseed_strength > 0:
            other, *_ = Flux2LatentCreator.prepare_packed_latents(seed=self._task.subseed, **size)
            noise = slerp(noise, other, plan.subseed_strength)
        if frame.init is None:
            return noise, *grid
        self._clean = start = self._encode(frame.init)
        if self._repaint is not None and plan.mask_content != "original":
            other, *_ = Flux2LatentCreator.prepare_packed_latents(seed=key_of(seed + 1), **size)
            content = other if plan.mask_content == "noise" else mx.zeros_like(start)
            start = mx.where(self._repaint, content, start)
        sigma = config.scheduler.sigmas[config.init_time_step]
        return LatentCreator.add_noise_by_interpolation(clean=start, noise=noise, sigma=sigma), *grid

    def _encode(self, image: Image) -> mx.array:
        helpers = _Flux2KleinEditHelpers
        # ImageUtil.load_image takes an image as well as a path: no file in between.
        encoded = LatentCreator.encode_image(
            vae=self._pipeline.vae,
            image_path=cast(Any, image),
            height=image.height,
            width=image.width,
            tiling_config=self._pipeline.tiling_config,
        )
        width, height = self._task.frame.drawn
        latent = resize_latents(helpers.ensure_4d_latents(encoded), height // 8, width // 8)
        patches = Flux2LatentCreator.patchify_latents(latent)
        normal = helpers.bn_normalize_vae_encoded_latents(patches, vae=self._pipeline.vae)
        return Flux2LatentCreator.pack_latents(normal)

    def predictor(self, transformer: Any) -> Callable[..., mx.array]:
        """Replacement for `_predict`: a function from a step's arguments to the velocity."""
        pipeline, references = self._pipeline, self._task.frame.references
        if references:
            tokens, ids = _Flux2KleinEditHelpers.prepare_reference_image_conditioning(
                vae=pipeline.vae, tiling_config=pipeline.tiling_config, image_paths=list(references)
            )
            mx.eval(tokens, ids)
            edit = Flux2KleinEdit._predict(pipeline, transformer)
            predict: Callable[..., mx.array] = partial(edit, image_latents=tokens, image_latent_ids=ids)
            if pipeline.model_config.supports_kv_cache:
                predict = ReferenceCache(
                    predict, Flux2KleinEdit._cached_predict(transformer), transformer, tokens.shape[1]
                )
        else:
            predict = type(pipeline)._predict(transformer)
        if self._repaint is None or self._clean is None:
            return predict
        return partial(_velocity_keeping_input, predict, self._clean, self._repaint, self._denoising)


class ReferenceCache:
    """Velocity of a model that reads its reference images in the first step and caches them for the others: `tokens` of
    them, as in mflux's edit loop, without guidance.
    """

    def __init__(
        self, first: Callable[..., mx.array], later: Callable[..., mx.array], transformer: Any, tokens: int
    ) -> None:
        self._first, self._later, self._tokens = first, later, tokens
        layers = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
        self._cache = Flux2KVCache(num_double_layers=layers[0], num_single_layers=layers[1])

    def __call__(self, **arguments: Any) -> mx.array:
        is_first = self._cache.mode is None
        self._cache.configure(mode="extract" if is_first else "cached", num_ref_tokens=self._tokens)
        return (self._first if is_first else self._later)(**arguments, kv_cache=self._cache)


def _velocity_keeping_input(
    predict: Callable[..., mx.array],
    clean: mx.array,
    repaint: mx.array,
    denoising: DenoisingRun,
    *,
    latents: mx.array,
    **arguments: Any,
) -> mx.array:
    """Velocity whose kept part leads straight to the input image, so that no step leaves it."""
    return mx.where(repaint, predict(latents=latents, **arguments), (latents - clean) / denoising.sigma)


def packed_repaint_mask(mask: Image) -> mx.array:
    """Mask of packed latents, (1, tokens, 128) of booleans: true where a white pixel of `mask`, a multiple of 16 pixels
    in size, touches the latent. A kept pixel inside a repainted latent would pull the rest of it back.
    """
    columns, rows = mask.width // 8, mask.height // 8
    pixels = mx.array(np.asarray(mask)).reshape(rows, 8, columns, 8)
    repainted = mx.broadcast_to(pixels.max(axis=(1, 3)) > 127, (1, 32, rows, columns))
    return Flux2LatentCreator.pack_latents(Flux2LatentCreator.patchify_latents(repainted))


def sigma_of(tokens: int, scheduler_steps: int, first: int) -> float:
    """Share of noise at step `first` of mflux's schedule, for an image of so many tokens."""
    shift = FlowMatchEulerDiscreteScheduler._compute_empirical_mu(tokens, scheduler_steps)
    return shift_sigma(shift, (scheduler_steps - first) / scheduler_steps)


class CachedPrompts:
    """Replacement for the pipeline's `_encode_prompt_pair` with a prompt cache."""

    def __init__(self, encode: Callable[..., tuple[Any, ...]]) -> None:
        self._cache = PromptCache(lambda text: encode(prompt=text, negative_prompt=None, guidance=1.0)[:2])

    def pair(self, *, prompt: str, negative_prompt: str | None, guidance: float) -> tuple[mx.array | None, ...]:
        """Embedding and ids of the prompt, and of the negative prompt where guidance is above 1."""
        if negative_prompt is None or guidance <= 1.0:
            return *self._cache.encode(prompt), None, None
        return *self._cache.encode(prompt), *self._cache.encode(negative_prompt)
