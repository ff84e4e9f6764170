"""Held-out scenes, and the check whether an image shows its scene."""

from dataclasses import replace
from random import Random

import numpy as np
from PIL import Image

from .drawing import SHAPES
from .edits import Edit, sample_edit
from .icons import ICONS
from .pairs import Pair, sample_pair
from .reading import Found, appearance, background, nearest_kind, objects, whole
from .scenes import PLAINEST, RELATIONS, Scene, held_out, render, sample_scene


def evaluation_scenes(count: int, seed: int, everything: bool = True) -> list[Scene]:
    """Scenes of shapes whose combination of kind, colour and background was never trained on."""
    rng = Random(seed)
    scenes = []
    while len(scenes) < count:
        scene = sample_scene(rng, everything)
        if held_out(scene) and scene.background and all(group.kind in SHAPES for group in scene.groups):
            scenes.append(scene)
    return scenes


def icon_scenes(seed: int, each: int = 2) -> list[Scene]:
    """Single icons, some of each kind, in the order of the kinds."""
    rng = Random(seed)
    wanted = dict.fromkeys(ICONS, each)
    scenes = []
    while any(wanted.values()):
        scene = sample_scene(rng, everything=True)
        group = scene.groups[0]
        if len(scene.groups) == group.count == 1 and wanted.get(group.kind):
            wanted[group.kind] -= 1
            scenes.append(scene)
    return sorted(scenes, key=lambda scene: list(ICONS).index(scene.groups[0].kind))


def edit_cases(count: int, seed: int, everything: bool = True) -> list[Edit]:
    """Changes of shapes to scenes whose combination of kind, colour and background was never trained on."""
    rng = Random(seed)
    cases: list[Edit] = []
    while len(cases) < count:
        case = sample_edit(rng, everything)
        groups = (*case.before.groups, *case.after.groups)
        if held_out(case.after) and all(group.kind in SHAPES for group in groups):
            cases.append(case)
    return cases


def pair_cases(count: int, seed: int) -> list[Pair]:
    """Pairs of shapes that ask for a combination of kind, colour and background that was never trained on."""
    rng = Random(seed)
    cases: list[Pair] = []
    while len(cases) < count:
        case = sample_pair(rng)
        if held_out(case.after) and all(group.kind in SHAPES for group in case.after.groups):
            cases.append(case)
    return cases


def _relation_holds(scene: Scene, first: Found, second: Found) -> bool:
    if scene.relation not in RELATIONS:
        return abs(first.centre[0] - second.centre[0]) > abs(first.centre[1] - second.centre[1])
    dx, dy = RELATIONS[scene.relation]
    along = dx * (first.centre[0] - second.centre[0]) + dy * (first.centre[1] - second.centre[1])
    return along > 8


def judge(scene: Scene, image: Image.Image) -> dict[str, bool]:
    """The properties of a scene of shapes, or of one icon, that are right in an image."""
    if scene.groups[0].kind in ICONS:
        thing = whole(image)
        return {"icon": thing is not None and nearest_kind(thing, tuple(ICONS)) == scene.groups[0].kind}
    found = objects(image)
    verdict = {"background": background(image) == (scene.background or "white")}
    verdict["count"] = len(found) == sum(group.count for group in scene.groups)
    if len(scene.groups) == 1:
        group = scene.groups[0]
        verdict["colour"] = bool(found) and all(thing.colour == group.colour for thing in found)
        verdict["shape"] = bool(found) and all(nearest_kind(thing) == group.kind for thing in found)
        return verdict
    pairs = [(found[0], found[1]), (found[1], found[0])] if len(found) == 2 else []
    wanted = [(group.kind, group.colour) for group in scene.groups]
    colours = [pair for pair in pairs if [thing.colour for thing in pair] == [colour for _, colour in wanted]]
    shapes = [pair for pair in pairs if [nearest_kind(thing) for thing in pair] == [kind for kind, _ in wanted]]
    verdict["colour"] = bool(colours)
    verdict["shape"] = bool(shapes)
    verdict["relation"] = any(_relation_holds(scene, *pair) for pair in colours or shapes)
    return verdict


def ranked_icons(scene: Scene, image: Image.Image) -> list[str]:
    """All icons, most similar first: each drawn as the scene describes its own, compared by pixels with the object.

    Empty when there is no object.
    """
    seen = appearance(image)
    if seen is None:
        return []

    def distance(kind: str) -> float:
        wanted = appearance(render(replace(scene, groups=(replace(scene.groups[0], kind=kind),)), PLAINEST))
        return float("inf") if wanted is None else float(np.abs(seen - wanted).mean())

    return sorted(ICONS, key=distance)
