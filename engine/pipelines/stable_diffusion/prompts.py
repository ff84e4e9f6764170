"""Conditions of the network at each call of a sampling run: prompts, and for SDXL the image's size."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from engine.catalog.spec import Family
from engine.pipelines.stable_diffusion.conditioning import Conditioning, PromptPlan, StepConditioning, time_ids
from engine.pipelines.stable_diffusion.network import Condition
from engine.pipelines.stable_diffusion.networks.unet import embed_sizes


class SizedPrompts:
    """Conditions of a `PromptPlan` for an image of `size_px` (width, height)."""

    def __init__(self, plan: PromptPlan, family: Family, size_px: tuple[int, int]) -> None:
        self._plan = plan
        positive, negative = (time_ids(family, *size_px, is_negative=negative) for negative in (False, True))
        self._sizes = embed_sizes(positive) if positive else None
        self._negative_sizes = embed_sizes(negative) if negative else None
        self._step: StepConditioning | None = None
        self._found: tuple[Sequence[tuple[float, Condition]], Condition] | None = None

    def at(self, call: int) -> tuple[Sequence[tuple[float, Condition]], Condition]:
        """Weighted conditions of the prompt, and that of the negative prompt, at this call from 0."""
        step = self._plan.at(call)
        if self._found is None or step is not self._step:
            prompts, negative = step
            weighted = [(weight, _condition(one, self._sizes)) for weight, one in prompts]
            self._step, self._found = step, (weighted, _condition(negative, self._negative_sizes))
        return self._found


def _condition(conditioning: Conditioning, sizes: mx.array | None) -> Condition:
    if sizes is None or conditioning.pooled is None:
        return Condition(conditioning.context)
    return Condition(
        conditioning.context, mx.concatenate([conditioning.pooled, sizes.astype(conditioning.pooled.dtype)], axis=-1)
    )
