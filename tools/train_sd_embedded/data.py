"""Training images, rendered in pools: latents with what their prompts say."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from tools.train_embedded.icons import ICONS
from tools.train_embedded.scenes import (
    COLOURS,
    FIRST_KINDS,
    Group,
    Scene,
    Style,
    held_out,
    render,
    said,
    sample_scene,
)

from .captions import BARE_SHARE, BLANK_SHARE, bare_caption, caption, is_single
from .cells import latents_of

KNOWN_ICONS = (
    "house", "tree", "sun", "moon", "flower", "boat", "car", "fish", "face", "apple", "cloud", "mushroom",
)  # fmt: skip
"""Icons that this model learns; the others have more detail than its latents can hold."""

POOL = 2048
PASSES = 3
"""How often each image of a pool is used, with other noise: rendering it takes as long as a sixth of a step on it."""

EXCESS = 0.4
"""How much further from grey than the colour itself a picture is whose prompt is only the name of a colour. A negative
prompt of that name then leads away from the colour, even where the prompt asks for it.
"""


@dataclass(frozen=True)
class Lesson:
    """What is rendered: variety from 0 (all alike) to 1, all kinds or six, groups and pairs or single objects."""

    variety: float
    everything: bool
    several: bool


def sample_lesson_scene(rng: Random, lesson: Lesson) -> Scene:
    """A random scene of a lesson that is not held out."""
    while True:
        scene = sample_scene(rng, lesson.everything)
        if any(group.kind in ICONS and group.kind not in KNOWN_ICONS for group in scene.groups) or held_out(scene):
            continue
        if lesson.several or is_single(scene):
            return scene


def _pixels(scene: Scene, style: Style) -> np.ndarray:
    return np.asarray(render(scene, style))


def _excessive(kind: str, colour: str, style: Style) -> np.ndarray:
    """Latents of one object on white in a colour further from grey than pixels allow."""
    images = [_pixels(Scene((Group(kind, name),), None), style) for name in (colour, "gray")]
    plain, grey = latents_of(np.stack(images))
    return plain + EXCESS * (plain - grey)


@dataclass(frozen=True)
class Pool:
    """Latents (N x 4 x 16 x 16, float32) and a prompt for each."""

    latents: torch.Tensor
    texts: list[str]


def paint_pool(seed: int, count: int, lesson: Lesson) -> Pool:
    """Random images of a lesson with prompts."""
    rng = Random(seed)
    images, texts, special = [], [], {}
    for number in range(count):
        style = Style.sample(rng, lesson.variety)
        form = rng.random()
        if form < BARE_SHARE:
            kind = rng.choice(FIRST_KINDS)
            colour = rng.choice([name for name in COLOURS if name != "white"])
            scene = Scene((Group(kind, colour),), None)
            if form < 0.5 * BARE_SHARE:
                texts.append(said(colour, rng))
                special[number] = _excessive(kind, colour, style)
            else:
                texts.append(bare_caption(scene, rng))
        else:
            scene = sample_lesson_scene(rng, lesson)
            texts.append("" if rng.random() < BLANK_SHARE else caption(scene, rng))
        images.append(_pixels(scene, style))
    latents = latents_of(np.stack(images))
    for number, values in special.items():
        latents[number] = values
    return Pool(torch.from_numpy(latents), texts)


class Supply:
    """Pools of images, each handed out a few times in another order."""

    def __init__(self, seed: int, batch: int) -> None:
        self._seed, self._batch = seed, batch
        self._pool: Pool | None = None
        self._order: list[int] = []

    def batch(self, step: int, lesson: Lesson) -> tuple[torch.Tensor, list[str]]:
        """Latents and prompts of a step; a new pool follows the lesson."""
        if self._pool is None or len(self._order) < self._batch:
            self._pool = paint_pool(self._seed * 1_000_003 + step, POOL, lesson)
            rng = Random(step)
            self._order = [index for _ in range(PASSES) for index in rng.sample(range(POOL), POOL)]
        chosen, self._order = self._order[: self._batch], self._order[self._batch :]
        return self._pool.latents[chosen], [self._pool.texts[index] for index in chosen]


def render_images(seed: int, count: int) -> np.ndarray:
    """Random images of all kinds that the model learns, held-out scenes among them: uint8, N x H x W x 3."""
    rng = Random(seed)
    images: list[np.ndarray] = []
    while len(images) < count:
        scene = sample_scene(rng, everything=True)
        if all(group.kind not in ICONS or group.kind in KNOWN_ICONS for group in scene.groups):
            images.append(_pixels(scene, Style.sample(rng)))
    return np.stack(images)
