"""Stable Diffusion as AUTOMATIC1111 draws it: from a plan to latents, in one or two sampling runs, and to the image.

Source: A1111 1.10.1 modules/processing.py, StableDiffusionProcessingTxt2Img.sample and sample_hr_pass,
StableDiffusionProcessingImg2Img.init and sample, by what they compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx
from PIL import Image

from engine.drawing.base import Watcher
from engine.pipelines.common.base import ImageTask
from engine.pipelines.common.finite import check_finite
from engine.pipelines.common.latents import shrink_latents
from engine.pipelines.common.preview_size import PreviewSize
from engine.pipelines.stable_diffusion.autoencoder import CELL_PX, Autoencoder, Interpolation, resize_latents
from engine.pipelines.stable_diffusion.guidance import GuidanceRule, GuidedDenoiser, Part
from engine.pipelines.stable_diffusion.masks import LatentMask, latent_mask, masked_image_channels
from engine.pipelines.stable_diffusion.models import Model, Models
from engine.pipelines.stable_diffusion.noise_supply import NoiseSupply, image_noise, to_latents
from engine.pipelines.stable_diffusion.progress import SamplingProgress, Skipped
from engine.pipelines.stable_diffusion.prompts import SizedPrompts
from engine.prompts import plan as prompt_plan
from engine.protocol import Sampling, SecondPass
from engine.samplers.samplers import SamplingRun, plan_sampling

ENLARGEMENTS: dict[str, tuple[Interpolation, bool]] = {
    "latent": ("bilinear", False),
    "latent-antialiased": ("bilinear", True),
    "latent-bicubic": ("bicubic", False),
    "latent-bicubic-antialiased": ("bicubic", True),
    "latent-nearest": ("nearest", False),
    "latent-nearest-exact": ("nearest-exact", False),
}
"""Interpolation of latents, and whether it is antialiased. Source: A1111 1.10.1 modules/shared_items.py."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One sampling run: what is drawn, and how. Sizes in latents. `denoise` None: from noise alone."""

    prompt: str
    negative_prompt: str
    columns: int
    rows: int
    steps: int
    guidance: float
    sampling: Sampling
    denoise: float | None = None
    told_px: tuple[int, int] | None = None
    """Width and height that SDXL is told; None: those of the image."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.columns * CELL_PX, self.rows * CELL_PX

    def prompts(self, model: Model, run: SamplingRun) -> SizedPrompts:
        """Conditions of both prompts in this pass. Raises: BackendError("bad_input")."""
        steps = self.steps_of_prompts(run)
        return model.prompts(self.prompt, self.negative_prompt, steps, self.sampling, self.told_px or self.size_px)

    def steps_of_prompts(self, run: SamplingRun) -> prompt_plan.Pass:
        """Steps that prompt editing counts."""
        sampling = self.sampling
        if sampling.first_pass_steps is None:
            return prompt_plan.Pass(run.steps_per_prompt, old_editing=sampling.old_prompt_editing)
        return prompt_plan.Pass(sampling.first_pass_steps, run.steps_per_prompt, sampling.old_prompt_editing)

    def run(self, model: Model) -> SamplingRun:
        """The sampler's run of this pass."""
        return plan_sampling(
            self.sampling,
            self.steps,
            model.levels(self.sampling),
            is_sdxl=model.is_sdxl,
            denoise=self.denoise,
            second_pass=self.sampling.first_pass_steps is not None,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """What a pass begins from: latents, their mask, and the further channels of an inpainting model."""

    latents: mx.array | None = None
    mask: LatentMask | None = None
    extra: mx.array | None = None


class StableDiffusion:
    """A loaded Stable Diffusion model."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._preview_size = PreviewSize()

    def denoise(self, task: ImageTask, watcher: Watcher) -> Callable[[], Image.Image]:
        plan = task.plan
        sampling = plan.sampling or Sampling()
        models = self._models
        models.prepare(sampling, task.loras, task.files)
        autoencoder = models.autoencoder(sampling, task.files)
        second = plan.second_pass if plan.second_pass is not None and plan.second_pass.enlarges_latents else None
        passes = _passes(task, sampling, second)
        progress = SamplingProgress(
            watcher,
            sum(one.run(models.base).steps for one in passes),
            lambda latents, seconds: task.frame.preview(self._preview(task, sampling, latents, seconds)),
        )
        start = _start(task, passes[0], autoencoder, is_inpainting=models.base.is_inpainting)
        try:
            latents = self._sample(task, passes[0], start, progress, is_last=plan.second_pass is None)
            if second is not None:
                latents = enlarge(latents, task.frame.drawn, second)
                grey = _extra_channels(
                    None, None, (second.width_px, second.height_px), autoencoder, models.base.is_inpainting
                )
                if second.denoise > 0:
                    latents = self._sample(task, passes[1], Start(latents, extra=grey), progress, is_last=True)
        except Skipped as skipped:
            latents = skipped.latents
            if second is not None and latents.shape[1:3] == (passes[0].rows, passes[0].columns):
                latents = enlarge(latents, task.frame.drawn, second)
        mx.eval(latents)
        check_finite(latents, "latents")
        watcher.start_decoding()
        # As in A1111, the VAE of the model that was drawn with last decodes.
        decode = models.autoencoder(sampling, task.files).decode
        return partial(decode, latents, in_strips=plan.low_ram)

    def _sample(
        self, task: ImageTask, one: Pass, start: Start, progress: SamplingProgress, *, is_last: bool
    ) -> mx.array:
        """Latents of one pass. Raises: JobCancelled, Skipped."""
        models, sampling, plan = self._models, one.sampling, task.plan
        run = one.run(models.base)
        subseed = plan.subseeds[task.image] if plan.subseed_strength > 0 else None
        noise = image_noise(sampling, plan.seeds[task.image], subseed, plan.subseed_strength, one.rows, one.columns)
        first = to_latents(noise.first())
        mask, latents = start.mask, start.latents
        if mask is not None and latents is not None:
            latents = _masked_content(task, one, mask)
            mask = LatentMask(mask.repaint, latents)
        refiner = sampling.refiner if is_last else None
        denoiser = GuidedDenoiser(
            Part(models.base.network(sampling), one.prompts(models.base, run), start.extra),
            GuidanceRule(
                one.guidance * run.guidance_factor,
                run.counted_calls,
                sampling.s_min_uncond,
                sampling.skip_early_cond,
                always_unconditional=sampling.sampler == "DDIM CFG++",
            ),
            check=progress.watcher.check,
            mask=mask,
            masks_input=run.blends_before,
            switch_at=2.0 if refiner is None else refiner.switch_at,
            refiner=None if refiner is None else lambda: self._refine(task, one, run, refiner.model),
        )
        progress.begin()
        supply = NoiseSupply(
            noise, plan.seeds[task.image], (4, one.rows, one.columns), run.brownian_range, sampling.random_source
        )
        made = run.run(denoiser, run.start(first, latents), supply, lambda _, denoised: progress.step(denoised))
        return made if mask is None else mask.blend(made)

    def _refine(self, task: ImageTask, one: Pass, run: SamplingRun, name: str) -> Part:
        model = self._models.refiner(name, task.loras, one.sampling, task.files)
        return Part(model.network(one.sampling), one.prompts(model, run))

    def _preview(self, task: ImageTask, sampling: Sampling, latents: mx.array, step_s: float) -> Image.Image:
        began = time.monotonic()
        autoencoder = self._models.autoencoder(sampling, task.files)
        small = shrink_latents(latents.transpose(0, 3, 1, 2), self._preview_size.px).transpose(0, 2, 3, 1)
        image = autoencoder.decode(small)
        self._preview_size.learn(time.monotonic() - began, step_s)
        return image

    def can_read(self, prompt_key: str | None) -> bool:
        return True

    def save(self, folder: str) -> None:
        self._models.base.save(Path(folder))


def _passes(task: ImageTask, sampling: Sampling, second: SecondPass | None) -> list[Pass]:
    """Sampling runs of an image."""
    plan, (width, height) = task.plan, task.frame.drawn
    negative = plan.negative_prompt or ""
    denoise = None if task.frame.init is None else plan.denoise
    first = Pass(
        plan.prompt, negative, width // CELL_PX, height // CELL_PX, plan.steps, plan.guidance, sampling, denoise
    )
    if second is None or second.denoise <= 0:
        return [first]
    return [
        first,
        Pass(
            plan.prompt if second.prompt is None else second.prompt,
            negative if second.negative_prompt is None else second.negative_prompt,
            second.width_px // CELL_PX,
            second.height_px // CELL_PX,
            second.steps,
            plan.guidance if second.guidance is None else second.guidance,
            second.sampling_after(sampling, plan.steps),
            second.denoise,
            covering_px(task.frame.drawn, second),
        ),
    ]


def _start(task: ImageTask, first: Pass, autoencoder: Autoencoder, *, is_inpainting: bool) -> Start:
    """What the first pass begins from."""
    frame, size = task.frame, (first.columns * CELL_PX, first.rows * CELL_PX)
    extra = _extra_channels(frame.init, frame.mask, size, autoencoder, is_inpainting)
    if frame.init is None:
        return Start(extra=extra)
    latents = resize_latents(autoencoder.encode(frame.init), first.columns, first.rows)
    if frame.mask is None:
        return Start(latents, extra=extra)
    return Start(latents, LatentMask(latent_mask(frame.mask, first.columns, first.rows), latents), extra)


def _masked_content(task: ImageTask, one: Pass, mask: LatentMask) -> mx.array:
    """Latents of the input image with the initial content of the repainted part. Its noise is that of the seed alone.

    Source: A1111 1.10.1 StableDiffusionProcessingImg2Img.init, `inpainting_fill`.
    """
    match task.plan.mask_content:
        case "original":
            return mask.kept
        case "noise":
            plain = one.sampling.model_copy(update={"seed_resize_px": None})
            noise = image_noise(plain, task.plan.seeds[task.image], None, 0.0, one.rows, one.columns)
            return mask.blend(to_latents(noise.first()))
        case "nothing":
            return mask.blend(mx.zeros_like(mask.kept))


def _extra_channels(
    image: Image.Image | None,
    mask: Image.Image | None,
    size: tuple[int, int],
    autoencoder: Autoencoder,
    is_inpainting: bool,
) -> mx.array | None:
    """Further channels of an inpainting model; None for other models."""
    if not is_inpainting:
        return None
    fitted = None if image is None else image if image.size == size else image.resize(size)
    return masked_image_channels(fitted, mask, size, autoencoder.encode)


def covering_px(drawn: tuple[int, int], second: SecondPass) -> tuple[int, int]:
    """Width and height of an image that covers the second pass's size with the proportions of `drawn`: what SDXL is
    told.

    Source: A1111 1.10.1 calculate_target_resolution and calculate_hr_conds.
    """
    width, height = drawn
    if width * second.height_px > second.width_px * height:
        return second.height_px * width // height, second.height_px
    return second.width_px, second.width_px * height // width


def enlarge(latents: mx.array, drawn: tuple[int, int], second: SecondPass) -> mx.array:
    """Latents of the second pass's size: enlarged to cover it, and cropped to its middle.

    Source: A1111 1.10.1 sample_hr_pass.
    """
    method, antialias = ENLARGEMENTS[second.enlarge]
    wide, tall = covering_px(drawn, second)
    rows, columns = second.height_px // CELL_PX, second.width_px // CELL_PX
    whole = resize_latents(
        latents, max(columns, wide // CELL_PX), max(rows, tall // CELL_PX), method, antialias=antialias
    )
    top, left = (whole.shape[1] - rows) // 2, (whole.shape[2] - columns) // 2
    return whole[:, top : top + rows, left : left + columns]
