"""Changes of a scene, and prompts that ask for them with the scene's image as reference."""

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from .drawing import SHAPES
from .icons import ICONS
from .scenes import (
    COLOURS,
    FIRST_KINDS,
    Scene,
    held_out,
    name_of,
    prompt,
    said,
    sample_scene,
    training_scene,
    with_article,
)

DESCRIBED_SHARE = 0.15
"""Share of changes that are requested by describing the wanted image."""


Change = Literal["colour", "background", "kind"]


@dataclass(frozen=True)
class Edit:
    """A change: its kind, the prompt that asks for it, and the scene before and after."""

    what: Change
    words: str
    before: Scene
    after: Scene


def sample_edit(rng: Random, everything: bool) -> Edit:
    """A random change of a random scene of the first or of all kinds."""
    return edit(sample_scene(rng, everything), rng, everything)


def training_edit(rng: Random, everything: bool) -> Edit:
    """A random change in which neither scene is held out."""
    while held_out((change := edit(training_scene(rng, everything), rng, everything)).after):
        pass
    return change


def edit(scene: Scene, rng: Random, everything: bool) -> Edit:
    """A random change of a scene."""
    choice = rng.random()
    if choice < 0.4:
        change = _recolour(scene, rng)
    elif choice < 0.75 or len(scene.groups) > 1:
        change = _other_background(scene, rng)
    else:
        change = _other_kind(scene, rng, everything)
    return replace(change, words=prompt(change.after, rng)) if rng.random() < DESCRIBED_SHARE else change


def _colour(but: tuple[str | None, ...], rng: Random) -> str:
    return rng.choice([colour for colour in COLOURS if colour not in but])


def _recolour(scene: Scene, rng: Random) -> Edit:
    number = rng.randrange(len(scene.groups))
    group = scene.groups[number]
    colour = _colour((group.colour, scene.background or "white"), rng)
    word, noun, it = said(colour, rng), name_of(group, rng), "them" if group.count > 1 else "it"
    forms = [
        f"make the {noun} {word}",
        f"turn the {noun} {word}",
        f"paint the {noun} {word}",
        f"change the color of the {noun} to {word}",
        f"change the {noun} to {word}",
    ]
    if len(scene.groups) == 1:
        forms += [f"make {it} {word}", f"make {it} {word}", f"turn {it} {word}", f"change the color to {word}"]
        forms += [f"paint {it} {word}", f"change the colour to {word}"]
    groups = list(scene.groups)
    groups[number] = replace(group, colour=colour)
    return Edit("colour", rng.choice(forms), scene, replace(scene, groups=tuple(groups)))


def _other_background(scene: Scene, rng: Random) -> Edit:
    colour = _colour((scene.background or "white", *(group.colour for group in scene.groups)), rng)
    word = said(colour, rng)
    on = with_article(f"{word} background")
    forms = (
        f"make the background {word}",
        f"make the background {word}",
        f"change the background to {word}",
        f"turn the background {word}",
        f"put it on {on}",
        f"on {on}",
        f"{word} background",
    )
    return Edit("background", rng.choice(forms), scene, replace(scene, background=colour))


def _other_kind(scene: Scene, rng: Random, everything: bool) -> Edit:
    group = scene.groups[0]
    kinds = (*SHAPES, *ICONS) if everything else FIRST_KINDS
    colour = group.colour or _colour((scene.background or "white",), rng)
    other = replace(group, kind=rng.choice([kind for kind in kinds if kind != group.kind]), colour=colour)
    old, new = name_of(group, rng), name_of(other, rng)
    many = group.count > 1
    thing, it = (new, "them") if many else (with_article(new), "it")
    if group.colour is None:
        thing = f"{colour} {new}" if many else with_article(f"{colour} {new}")
    forms = (
        f"turn {it} into {thing}",
        f"make {it} {thing}",
        f"change {it} to {thing}",
        f"turn the {old} into {thing}",
        f"replace the {old} with {thing}",
    )
    return Edit("kind", rng.choice(forms), scene, replace(scene, groups=(other,)))
