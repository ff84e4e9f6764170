"""Pairs of reference images, and prompts that ask for a thing of one beside a thing of the other."""

from dataclasses import dataclass
from random import Random

from .scenes import (
    COLOURS,
    RELATION_WORDS,
    RELATIONS,
    Group,
    Scene,
    held_out,
    name_of,
    own_colour,
    said,
    sample_scene,
    with_article,
)

WHOLE_SHARE = 0.2
"""Share of pairs whose prompt names no thing, but only the images."""

SWAPPED_SHARE = 0.25
"""Share of pairs whose prompt begins with the second image."""

BARE_SHARE = 0.2
"""Share of pairs whose prompt names the things, but not their images."""

BACKGROUND_SHARE = 0.25
"""Share of pairs whose prompt names a background; else it is the first image's."""


@dataclass(frozen=True)
class Pair:
    """Prompt, the two scenes of the reference images, and the requested scene."""

    words: str
    first: Scene
    second: Scene
    after: Scene


def training_pair(rng: Random) -> Pair:
    """A random pair of which no scene is held out."""
    while True:
        pair = sample_pair(rng)
        if not any(held_out(scene) for scene in (pair.first, pair.second, pair.after)):
            return pair


def sample_pair(rng: Random) -> Pair:
    """A random pair of scenes of single things, and its prompt."""
    while (pair := _pair(_singles(rng), _singles(rng), rng)) is None:
        pass
    return pair


def _singles(rng: Random) -> Scene:
    """A random scene of one thing, or of two of different kinds."""
    while True:
        scene = sample_scene(rng, everything=True)
        kinds = {group.kind for group in scene.groups}
        if len(kinds) == len(scene.groups) and all(group.count == 1 for group in scene.groups):
            return scene


def _seen(group: Group, scene: Scene) -> Group:
    """A thing as the image of its scene shows it: its colour, but not its size."""
    return Group(group.kind, group.colour or own_colour(group.kind, scene.background))


def _pair(first: Scene, second: Scene, rng: Random) -> Pair | None:
    """The requested scene of two scenes; None where a thing would be on a background of its own colour."""
    shown = [(rng.choice(scene.groups), scene, number) for number, scene in ((1, first), (2, second))]
    if rng.random() < SWAPPED_SHARE:
        shown.reverse()
    relation = rng.choice((*RELATIONS, "beside", "beside", "beside"))
    names = [name_of(group, rng) for group, _, _ in shown]
    form = rng.random()
    if form < WHOLE_SHARE and len(first.groups) == len(second.groups) == 1:
        named = [f"picture {number}" for _, _, number in shown]
    elif form > 1 - BARE_SHARE:
        named = [f"the {name}" for name in names]
    else:
        named = [f"the {name} of picture {number}" for name, (_, _, number) in zip(names, shown, strict=True)]
    words = f" {rng.choice(RELATION_WORDS[relation])} ".join(named)
    background = first.background or "white"
    if rng.random() < BACKGROUND_SHARE:
        background = rng.choice(list(COLOURS))
        words += f" on {with_article(f'{said(background, rng)} background')}"
    things = tuple(_seen(group, scene) for group, scene, _ in shown)
    if background in (thing.colour for thing in things):
        return None
    return Pair(words, first, second, Scene(things, background, None, relation))
