"""Training batches of the flow: images with prompts, and images before and after a change."""

from dataclasses import dataclass
from random import Random

import torch

from engine.embedded.style import with_style

from .basis import Basis
from .latents import Edits, EncodedPool, encode_pool, paint_edits
from .scenes import prompt

BATCH = 32
POOL = 16_000
EDIT_POOL = 3200
EDIT_EVERY = 8
"""One batch of this many consists of changes, once all kinds are rendered."""

BLANK_SHARE = 0.06
UNSTYLED_SHARE = 0.05
"""Share of prompts without their style."""

WRONG_SHARE, WRONG_BELOW = 0.4, 0.8
"""Share of wrong prompts without noise, falling to none at this noise. They teach the model to keep an image that shows
through the noise, as img2img at a low denoising strength requires.
"""


@dataclass(frozen=True)
class Batch:
    """Prompts, clean latents (N x tokens x 128), and latents of reference images in a batch of changes."""

    texts: list[str]
    clean: torch.Tensor
    references: torch.Tensor | None = None


def styled_prompt(rendered: EncodedPool, index: int, rng: Random) -> str:
    """Prompt for an image: mostly with its style, sometimes blank."""
    if rng.random() < BLANK_SHARE:
        return " "
    text = prompt(rendered.scenes[index], rng)
    return text if rng.random() < UNSTYLED_SHARE else with_style(text, rendered.styles[index])


def misled(texts: list[str], sigma: torch.Tensor, rng: Random) -> list[str]:
    """The prompts, some exchanged for others; fewer with more noise (`sigma` from 0 to 1)."""
    shares = (WRONG_SHARE * (1.0 - sigma / WRONG_BELOW)).tolist()
    return [rng.choice(texts) if rng.random() < share else text for text, share in zip(texts, shares, strict=True)]


class Supply:
    """Renderer of pools of images, which are handed out once each."""

    def __init__(self, basis: Basis, seed: int, rng: Random) -> None:
        self._basis, self._seed, self._rng = basis, seed, rng
        self._pool: EncodedPool | None = None
        self._edits: Edits | None = None
        self._order: list[int] = []
        self._edit_order: list[int] = []

    def batch(self, step: int, variety: float, everything: bool) -> Batch:
        """The batch of a step. New pools have a variety from 0 to 1, and the first or all kinds."""
        if everything and step % EDIT_EVERY == 0:
            return self._changes(step, variety)
        if len(self._order) < BATCH:
            self._pool = encode_pool(self._basis, self._seed * 100_000 + step, POOL, variety, everything)
            self._order = self._rng.sample(range(POOL), POOL)
        rendered = self._pool
        assert rendered is not None
        picked, self._order = self._order[:BATCH], self._order[BATCH:]
        texts = [styled_prompt(rendered, i, self._rng) for i in picked]
        return Batch(texts, torch.from_numpy(rendered.latents[picked]).float())

    def _changes(self, step: int, variety: float) -> Batch:
        if len(self._edit_order) < BATCH:
            self._edits = paint_edits(self._basis, self._seed * 100_000 + step, EDIT_POOL, variety, everything=True)
            self._edit_order = self._rng.sample(range(EDIT_POOL), EDIT_POOL)
        edits = self._edits
        assert edits is not None
        picked, self._edit_order = self._edit_order[:BATCH], self._edit_order[BATCH:]
        after, before = (torch.from_numpy(side[picked]).float() for side in (edits.after, edits.before))
        return Batch([edits.words[i] for i in picked], after, before)
