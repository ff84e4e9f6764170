"""Classifier-free guidance: the denoised image of each call of a sampler, from the prompts of that step.

Source: A1111 1.10.1 modules/sd_samplers_cfg_denoiser.py, by what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from engine.pipelines.stable_diffusion.masks import LatentMask
from engine.pipelines.stable_diffusion.network import Condition, Network

NEGLIGIBLE = 1e-9


class Prompts(Protocol):
    """Conditions by the number of calls so far."""

    def at(self, call: int) -> tuple[Sequence[tuple[float, Condition]], Condition]:
        """Weighted conditions of the prompt, and that of the negative prompt."""


@dataclass(frozen=True, slots=True)
class Part:
    """A network with its prompts, and the further input channels of an inpainting model."""

    network: Network
    prompts: Prompts
    extra: mx.array | None = None


@dataclass(frozen=True, slots=True)
class GuidanceRule:
    """How strong guidance is, and when the negative prompt is omitted."""

    scale: float
    calls: int
    """Calls of the whole sampling run, as A1111 counts its steps."""
    s_min_uncond: float = 0.0
    skip_early_cond: float = 0.0
    always_unconditional: bool = False
    """Whether the sampler needs the image of the negative prompt by itself."""

    def skips_negative(self, call: int, level: float) -> bool:
        """Whether a call ignores the negative prompt, and with it the scale. `level` is what A1111 compares: sigma, or
        the timestep for samplers on timesteps.
        """
        if self.skip_early_cond and call / self.calls <= self.skip_early_cond:
            return True
        return call % 2 == 1 and level < self.s_min_uncond

    def needs_negative(self, weight: float) -> bool:
        """Whether the negative prompt changes the result; `weight` is the sum of the prompts' weights."""
        return self.always_unconditional or abs(1 - self.scale * weight) >= NEGLIGIBLE


class GuidedDenoiser:
    """Denoiser of one sampling run, as the samplers call it.

    `refiner` is asked for once the share `switch_at` of the timesteps is done. `check` raises JobCancelled.
    """

    def __init__(
        self,
        part: Part,
        rule: GuidanceRule,
        *,
        check: Callable[[], None],
        mask: LatentMask | None = None,
        masks_input: bool = False,
        switch_at: float = 2.0,
        refiner: Callable[[], Part] | None = None,
    ) -> None:
        self._part = part
        self._rule = rule
        self._check = check
        self._mask = mask
        self._masks_input = masks_input
        self._switch_at = switch_at
        self._refiner = refiner
        self._calls = 0
        self._unconditional: mx.array | None = None

    def __call__(self, x: mx.array, sigma: float, timestep: float | None = None) -> mx.array:
        """Denoised image (1, h, w, 4) of `x` at `sigma`; `timestep` None: that of the sigma. Raises: JobCancelled."""
        mx.eval(x)
        self._check()
        if self._masks_input and timestep is not None:  # a sampler on timesteps
            level, reached = timestep, int(timestep)
        else:
            level, reached = sigma, self._part.network.nearest_timestep(sigma)
        self._switch(reached)
        part = self._part
        prompts, negative = part.prompts.at(self._calls)
        weight = sum(one for one, _ in prompts)
        skips = self._rule.skips_negative(self._calls, level)
        omits = skips or not self._rule.needs_negative(weight)
        scale = 1.0 if skips else self._rule.scale
        conditions = [condition for _, condition in prompts]
        asked = conditions if omits else [*conditions, negative]
        denoised = part.network.denoise(x, sigma, timestep, asked, part.extra)
        base = denoised[0] if omits else denoised[-1]
        guided = base
        for (share, _), one in zip(prompts, denoised, strict=False):
            if one is not base:
                guided = guided + (one - base) * (share * scale)
        self._unconditional = base
        self._calls += 1
        return self._mask.blend(guided) if self._mask is not None and not self._masks_input else guided

    @property
    def unconditional(self) -> mx.array:
        """Denoised image of the last call by the negative prompt alone."""
        assert self._unconditional is not None
        return self._unconditional

    def before(self, x: mx.array) -> mx.array:
        """The sampler's own `x` with the kept part of the image in it, for samplers that blend before each call."""
        return self._mask.blend(x) if self._mask is not None and self._masks_input else x

    def _switch(self, timestep: int) -> None:
        if self._refiner is not None and (999 - timestep) / 1000 >= self._switch_at:
            self._part, self._refiner = self._refiner(), None
