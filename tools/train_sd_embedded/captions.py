"""Prompts of the training data: full ones, single words as negative prompts have them, and none."""

from __future__ import annotations

from random import Random

from tools.train_embedded.scenes import COLOURS, NOUNS, Scene, prompt, said, with_article

BLANK_SHARE = 0.12
"""Share of blank prompts; classifier-free guidance needs the model without a prompt."""

BARE_SHARE = 0.1
"""Share of images with one object whose prompt says only its colour, only its kind, or only these two."""

FILLER_SHARE = 0.06

PLAIN_SHARE = 0.5
"""Share of single objects that have the plainest prompt."""

FILLERS = (
    "masterpiece", "best quality", "detailed", "intricate", "sharp focus", "8k", "artstation", "beautiful lighting",
    "cinematic", "trending", "smooth", "highres", "absurdres", "colorful", "professional", "award winning",
)  # fmt: skip
"""Words that mean nothing here; a random one of them stands for every word that the model does not know."""

BARE = tuple(COLOURS)


def bare_kind(kind: str, rng: Random) -> str:
    """One of the names of a kind, in the singular."""
    return rng.choice(NOUNS.get(kind, ((kind, ""),)))[0]


def is_single(scene: Scene) -> bool:
    """Whether the scene is one object."""
    return len(scene.groups) == scene.groups[0].count == 1


def plain_prompt(scene: Scene) -> str:
    """`a red circle on a blue background`, with size and place where the scene of one object has them."""
    group = scene.groups[0]
    noun = f"{group.colour} {group.kind}" if group.colour else group.kind
    text = with_article(f"{group.size} {noun}" if group.size else noun)
    text = f"{text} in the {scene.position}" if scene.position else text
    return f"{text} on {with_article(f'{scene.background} background')}" if scene.background else text


def caption(scene: Scene, rng: Random) -> str:
    """A full prompt for a scene, sometimes with words that mean nothing."""
    text = plain_prompt(scene) if is_single(scene) and rng.random() < PLAIN_SHARE else prompt(scene, rng)
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
