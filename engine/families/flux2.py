"""FLUX.2 Klein, whole and tiny, as mflux 0.24 spells it. Knows one pipeline; the backend decides which is in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, exp
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mflux.models.common.config.model_config import AVAILABLE_MODELS
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from mflux.models.common.schedulers.flow_match_euler_discrete_scheduler import FlowMatchEulerDiscreteScheduler
from mflux.models.flux2 import Flux2Klein
from mflux.models.flux2.latent_creator.flux2_latent_creator import Flux2LatentCreator
from mflux.models.flux2.variants.edit.flux2_klein_edit import Flux2KleinEdit
from mflux.models.flux2.variants.edit.flux2_klein_edit_helpers import _Flux2KleinEditHelpers
from mflux.models.flux2.weights.flux2_lora_mapping import Flux2LoRAMapping
from mflux.utils.image_util import ImageUtil
from PIL.Image import Image

from engine.backends.base import Model, PictureSkipped, Watcher, steps_to_run
from engine.backends.canvas import PREVIEW_PX, Frame
from engine.families.base import Painter, Sketch
from engine.families.loras import Wardrobe
from engine.protocol import Generate

EMBEDDINGS_BYTES = 64 * 1024 * 1024
MOST_SCHEDULER_STEPS = 200
REFERENCE_SHIFT = 1.15
"""The shift of the noise schedule at which A1111 and ComfyUI begin an img2img of FLUX."""


def load(model: Model) -> Painter:
    """Klein by its geometry in mflux's table: names are never guessed from, and paths are absolute."""
    pipeline = Flux2Klein(
        model_path=model.path, quantize=model.quantize, model_config=AVAILABLE_MODELS[model.spec.geometry]
    )
    return Flux2Painter(pipeline)


def load_tiny(model: Model) -> Painter:
    """The same pipeline round toy-width parts."""
    from engine.families import flux2_tiny

    pipeline = flux2_tiny.build(model.path, quantize=model.quantize)  # type: ignore[arg-type]
    return Flux2Painter(pipeline, flux2_tiny.wording)


class Flux2Painter:
    """A pipeline with its prompt cache and the one callback it ever gets: mflux has no unregister."""

    def __init__(self, pipeline: Any, wording: Callable[[Generate, int], str] = lambda plan, _: plan.prompt) -> None:
        mx.eval(pipeline.parameters())
        self._pipeline = pipeline
        self._wording = wording
        self._wardrobe = Wardrobe(pipeline.transformer, Flux2LoRAMapping.get_mapping())
        self._observer = _Observer(pipeline.vae)
        pipeline.callbacks.register(self._observer)
        pipeline._encode_prompt_pair = Embeddings(pipeline._encode_prompt_pair).pair

    def paint(self, sketch: Sketch, watcher: Watcher) -> Image:
        plan, frame = sketch.plan, sketch.frame
        self._wardrobe.wear(sketch.loras)
        width, height = frame.drawn
        steps, strength = plan.steps, None
        if frame.init is not None and plan.denoise < 1:
            steps, strength = img2img_schedule(plan.steps, plan.denoise, (width // 16) * (height // 16))
        sitting = self._observer.sitting = _Sitting(watcher, frame)
        easel = Easel(self._pipeline, sketch, sitting)
        self._pipeline._prepare_generation_latents = easel.prepare
        self._pipeline._predict = easel.predictor
        try:
            made = self._pipeline.generate_image(
                seed=sketch.seed,
                prompt=self._wording(plan, sketch.image),
                num_inference_steps=steps,
                width=width,
                height=height,
                guidance=plan.guidance,
                # Only its presence counts: it makes the schedule begin late. Easel encodes the picture.
                image_path=frame.init if strength is not None else None,
                image_strength=strength,
            )
            return cast(Image, made.image)
        except Unfinished as unfinished:
            watcher.decoding()
            return self._observer.finished(unfinished.packed, self._pipeline.tiling_config)
        finally:
            self._observer.sitting = None
            del self._pipeline._prepare_generation_latents, self._pipeline._predict


class Unfinished(Exception):
    """The rest of the steps is left out; `packed` is where they would have led if they went straight on."""

    def __init__(self, packed: mx.array) -> None:
        super().__init__("the picture was skipped")
        self.packed = packed


class Easel:
    """What mflux's text-to-image loop lacks, put into two of its methods for the time of one picture: the noise of
    variations, a mask, and reference pictures. Latents are packed: (1, tokens, 128), a token for 16x16 pixels.
    """

    def __init__(self, pipeline: Any, sketch: Sketch, sitting: _Sitting) -> None:
        self._pipeline = pipeline
        self._sketch = sketch
        self._sitting = sitting
        self._clean: mx.array | None = None
        frame = sketch.frame
        self._repaint = None if frame.mask is None else repainted(frame.mask)

    def prepare(self, *, seed: int, config: Any) -> tuple[mx.array, mx.array, int, int]:
        """In the place of `_prepare_generation_latents`: what the first step begins from."""
        plan, frame = self._sketch.plan, self._sketch.frame
        size = {"height": config.height, "width": config.width, "batch_size": 1}
        noise, *grid = Flux2LatentCreator.prepare_packed_latents(seed=seed, **size)
        if plan.subseed_strength > 0:
            other, *_ = Flux2LatentCreator.prepare_packed_latents(seed=plan.subseeds[self._sketch.image], **size)
            noise = slerp(noise, other, plan.subseed_strength)
        if frame.init is None:
            return noise, *grid
        self._clean = start = self._encode(frame.init)
        if self._repaint is not None and plan.mask_content != "original":
            other, *_ = Flux2LatentCreator.prepare_packed_latents(seed=(seed + 1) % 2**32, **size)
            content = other if plan.mask_content == "noise" else mx.zeros_like(start)
            start = mx.where(self._repaint, content, start)
        sigma = config.scheduler.sigmas[config.init_time_step]
        return LatentCreator.add_noise_by_interpolation(clean=start, noise=noise, sigma=sigma), *grid

    def _encode(self, image: Image) -> mx.array:
        helpers = _Flux2KleinEditHelpers
        # ImageUtil.load_image takes a picture as well as a path: no file in between.
        encoded = LatentCreator.encode_image(
            vae=self._pipeline.vae,
            image_path=cast(Any, image),
            height=image.height,
            width=image.width,
            tiling_config=self._pipeline.tiling_config,
        )
        patches = Flux2LatentCreator.patchify_latents(helpers.ensure_4d_latents(encoded))
        normal = helpers.bn_normalize_vae_encoded_latents(patches, vae=self._pipeline.vae)
        return Flux2LatentCreator.pack_latents(normal)

    def predictor(self, transformer: Any) -> Callable[..., mx.array]:
        """In the place of `_predict`: a function from a step's arguments to the velocity."""
        pipeline, references = self._pipeline, self._sketch.frame.references
        if references:
            tokens, ids = _Flux2KleinEditHelpers.prepare_reference_image_conditioning(
                vae=pipeline.vae, tiling_config=pipeline.tiling_config, image_paths=list(references)
            )
            mx.eval(tokens, ids)
            edit = Flux2KleinEdit._predict(pipeline, transformer)
            predict = partial(edit, image_latents=tokens, image_latent_ids=ids)
        else:
            predict = type(pipeline)._predict(transformer)
        if self._repaint is None or self._clean is None:
            return predict
        return partial(_keep, predict, self._clean, self._repaint, self._sitting)


def _keep(
    predict: Callable[..., mx.array],
    clean: mx.array,
    repaint: mx.array,
    sitting: _Sitting,
    *,
    latents: mx.array,
    **arguments: Any,
) -> mx.array:
    """Velocity whose kept part goes straight back to the input picture, so that no step leaves that way."""
    return mx.where(repaint, predict(latents=latents, **arguments), (latents - clean) / sitting.sigma)


def repainted(mask: Image) -> mx.array:
    """Which packed latents, (1, tokens, 128) of booleans, a mask of multiples of 16 pixels repaints: all that it
    touches, as one pixel kept in them would pull the rest back.
    """
    columns, rows = mask.width // 8, mask.height // 8
    pixels = mx.array(np.asarray(mask)).reshape(rows, 8, columns, 8)
    touched = mx.broadcast_to(pixels.max(axis=(1, 3)) > 127, (1, 32, rows, columns))
    return Flux2LatentCreator.pack_latents(Flux2LatentCreator.patchify_latents(touched))


def slerp(one: mx.array, other: mx.array, share: float) -> mx.array:
    """Noise on the great circle between two, which keeps its length: `share` from 0 (`one`) to 1 (`other`)."""
    cosine = (one * other).sum() / (mx.linalg.norm(one.reshape(-1)) * mx.linalg.norm(other.reshape(-1)))
    angle = mx.arccos(mx.clip(cosine, -1.0, 1.0))
    return (mx.sin((1 - share) * angle) * one + mx.sin(share * angle) * other) / mx.sin(angle)


def img2img_schedule(steps: int, denoise: float, tokens: int) -> tuple[int, float]:
    """Scheduler steps and mflux's `image_strength` for `steps_to_run` steps from the noise that `denoise` stands for.

    mflux's own mapping begins at noise 0.77 for denoise 0.1 at 4 steps, which repaints the picture. A longer
    schedule of which only the end is run begins as low as asked and costs no more steps.
    """
    run = steps_to_run(steps, denoise)
    wanted = _shifted(REFERENCE_SHIFT, denoise)

    def distance(scheduler_steps: int) -> float:
        shift = FlowMatchEulerDiscreteScheduler._compute_empirical_mu(tokens, scheduler_steps)
        return abs(_shifted(shift, run / scheduler_steps) - wanted)

    best = min(range(run + 1, max(run + 2, MOST_SCHEDULER_STEPS)), key=distance)
    # mflux begins at int(steps * strength); the half keeps that clear of rounding.
    return best, (best - run + 0.5) / best


def _shifted(shift: float, time_left: float) -> float:
    """Share of noise when `time_left` (above 0, up to 1) of the schedule is left."""
    return exp(shift) / (exp(shift) + 1.0 / time_left - 1.0)


Encoder = Callable[..., tuple[mx.array, mx.array, mx.array | None, mx.array | None]]


class Embeddings:
    """Prompts already encoded, the least used forgotten first: mflux encodes anew for each picture."""

    def __init__(self, encode: Encoder, most_bytes: int = EMBEDDINGS_BYTES) -> None:
        self._encode = encode
        self._most_bytes = most_bytes
        self._known: OrderedDict[str, tuple[mx.array, mx.array]] = OrderedDict()

    def pair(
        self, *, prompt: str, negative_prompt: str | None, guidance: float
    ) -> tuple[mx.array, mx.array, mx.array | None, mx.array | None]:
        """In the place of the pipeline's `_encode_prompt_pair`."""
        embedding, ids = self._of(prompt)
        if negative_prompt is None or guidance <= 1.0:
            return embedding, ids, None, None
        return embedding, ids, *self._of(negative_prompt)

    def _of(self, text: str) -> tuple[mx.array, mx.array]:
        known = self._known.get(text)
        if known is None:
            embedding, ids, *_ = self._encode(prompt=text, negative_prompt=None, guidance=1.0)
            mx.eval(embedding, ids)
            known = self._known[text] = (embedding, ids)
            while self._bytes() > self._most_bytes and len(self._known) > 1:
                self._known.popitem(last=False)
        self._known.move_to_end(text)
        return known

    def _bytes(self) -> int:
        return sum(int(embedding.nbytes + ids.nbytes) for embedding, ids in self._known.values())


@dataclass(slots=True)
class _Sitting:
    """One picture on its way. `before` holds the latents one step ago, `clock` when the step began."""

    watcher: Watcher
    frame: Frame
    before: mx.array | None = None
    clock: float = 0.0
    sigma: float = 1.0
    """Share of noise that the next step begins with."""


class _Observer:
    """mflux's callbacks: evaluates before it looks at the clock, and lets the watcher stop the picture."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self.sitting: _Sitting | None = None

    def call_before_loop(self, *, latents: mx.array, config: Any, **_: Any) -> None:
        if self.sitting is not None:
            mx.eval(latents)
            self.sitting.sigma = float(config.scheduler.sigmas[config.init_time_step])
            self.sitting.before = latents
            self.sitting.clock = time.monotonic()

    def call_in_loop(self, *, t: int, latents: mx.array, config: Any, **_: Any) -> None:
        sitting = self.sitting
        if sitting is None or sitting.before is None:
            return
        # mflux calls this before it evaluates: without this line progress runs a step ahead.
        mx.eval(latents)
        seconds = time.monotonic() - sitting.clock
        before, first = sitting.before, int(config.init_time_step)

        def preview() -> bytes:
            return sitting.frame.preview(self._look(before, latents, config, t))

        try:
            sitting.watcher.step(t - first + 1, int(config.num_inference_steps) - first, seconds, preview)
        except PictureSkipped:
            raise Unfinished(_straight_on(before, latents, config, t)) from None
        sitting.before = latents
        sitting.sigma = float(config.scheduler.sigmas[t + 1])
        sitting.clock = time.monotonic()

    def call_after_loop(self, **_: Any) -> None:
        if self.sitting is not None:
            self.sitting.watcher.decoding()

    def finished(self, packed: mx.array, tiling_config: Any) -> Image:
        return cast(Image, ImageUtil.to_pil(self._vae.decode_packed_latents(packed, tiling_config=tiling_config)))

    def _look(self, before: mx.array, latents: mx.array, config: Any, t: int) -> Image:
        """What the picture would be if the rest of the way went straight on, small."""
        packed = _straight_on(before, latents, config, t)
        return cast(Image, ImageUtil.to_pil(self._vae.decode(_shrunk(self._vae.unpack_packed_latents(packed)))))


def _straight_on(before: mx.array, latents: mx.array, config: Any, t: int) -> mx.array:
    """Packed latents without noise, (1, 128, rows, columns): where step `t` points to."""
    sigmas = config.scheduler.sigmas
    velocity = (latents - before) / (sigmas[t + 1] - sigmas[t])
    clean = (latents - sigmas[t + 1] * velocity).astype(latents.dtype)
    rows, columns = config.height // 16, config.width // 16
    return clean.reshape(1, rows, columns, clean.shape[-1]).transpose(0, 3, 1, 2)


def _shrunk(latent: mx.array) -> mx.array:
    """VAE latents (1, channels, height / 8, width / 8), averaged until they decode to `PREVIEW_PX` at most."""
    _, channels, height, width = latent.shape
    pool = ceil(max(height, width) * 8 / PREVIEW_PX)
    if pool <= 1:
        return latent
    rows, columns = ceil(height / pool), ceil(width / pool)
    margins = [(0, 0), (0, 0), (0, rows * pool - height), (0, columns * pool - width)]
    whole = mx.pad(latent, margins, mode="edge")
    return whole.reshape(1, channels, rows, pool, columns, pool).mean(axis=(3, 5))
