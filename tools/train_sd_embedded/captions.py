"""Prompts of the training data: full ones, single words as negative prompts have them, and none."""

from __future__ import annotations

from random import Random

from tools.train_embedded.scenes import COLOURS, NOUNS, Scene, prompt, said

BLANK_SHARE = 0.12
"""Share of blank prompts; classifier-free guidance needs the model without a prompt."""

BARE_SHARE = 0.1
"""Share of images with one object whose prompt says only its colour, only its kind, or only these two."""

FILLER_SHARE = 0.06

FILLERS = (
    "masterpiece", "best quality", "detailed", "intricate", "sharp focus", "8k", "artstation", "beautiful lighting",
    "cinematic", "trending", "smooth", "highres", "absurdres", "colorful", "professional", "award winning",
)  # fmt: skip
"""Words that mean nothing here; a random one of them stands for every word that the model does not know."""

BARE = tuple(COLOURS)


def bare_kind(kind: str, rng: Random) -> str:
    """One of the names of a kind, in the singular."""
    return rng.choice(NOUNS.get(kind, ((kind, ""),)))[0]


def caption(scene: Scene, rng: Random) -> str:
    """A full prompt for a scene, sometimes with words that mean nothing."""
    text = prompt(scene, rng)
    if rng.random() < FILLER_SHARE:
        words = ", ".join(rng.sample(FILLERS, rng.randrange(1, 4)))
        text = f"{words}, {text}" if rng.random() < 0.5 else f"{text}, {words}"
    return text


def bare_caption(scene: Scene, rng: Random) -> str:
    """The kind of a single object, or its kind and colour without an article."""
    group = scene.groups[0]
    assert group.colour is not None
    noun = bare_kind(group.kind, rng)
    return noun if rng.random() < 0.5 else f"{said(group.colour, rng)} {noun}"
