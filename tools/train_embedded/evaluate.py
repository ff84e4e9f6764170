"""Draws held-out prompts with the exported model and reads from the pixels what came out.

Runs in the engine's environment (MLX), not in the training one:
`python -m tools.train_embedded.evaluate engine/embedded/flux2-tiny --sheet sheet.png`.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from random import Random

from PIL import Image

from engine.families.flux2_tiny import NATIVE_PX, NATIVE_STEPS, build

from .drawing import ICONS
from .reading import Found, background, nearest_kind, objects
from .scenes import RELATIONS, Scene, held_out, prompt, sample_scene

SHEET_COLUMNS = 12


def evaluation_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes of shapes whose combination of kind, colour and background was never trained on."""
    rng = Random(seed)
    scenes = []
    while len(scenes) < count:
        scene = sample_scene(rng)
        if held_out(scene) and scene.background:
            scenes.append(scene)
    return scenes


def icon_scenes(seed: int) -> list[Scene]:
    """Single icons, two of each kind."""
    rng = Random(seed)
    scenes = []
    for kind in ICONS:
        found = 0
        while found < 2:
            scene = sample_scene(rng, icons=True)
            if len(scene.groups) == 1 and scene.groups[0].kind == kind and scene.groups[0].count == 1:
                scenes.append(scene)
                found += 1
    return scenes


def _relation_holds(scene: Scene, first: Found, second: Found) -> bool:
    if scene.relation not in RELATIONS:
        return abs(first.centre[0] - second.centre[0]) > abs(first.centre[1] - second.centre[1])
    dx, dy = RELATIONS[scene.relation]
    along = dx * (first.centre[0] - second.centre[0]) + dy * (first.centre[1] - second.centre[1])
    return along > 8


def judge(scene: Scene, picture: Image.Image) -> dict[str, bool]:
    """What of a scene of shapes is right in a picture."""
    found = objects(picture)
    verdict = {"background": background(picture) == (scene.background or "white")}
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


def _contact_sheet(pictures: list[Image.Image], path: Path) -> None:
    rows = -(-len(pictures) // SHEET_COLUMNS)
    cell = NATIVE_PX + 2
    sheet = Image.new("RGB", (SHEET_COLUMNS * cell, rows * cell))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % SHEET_COLUMNS * cell, i // SHEET_COLUMNS * cell))
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--quantize", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--icons", action="store_true", help="draw icons, too")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--verbose", action="store_true", help="list the prompts that came out wrong")
    arguments = parser.parse_args()
    model = build(arguments.model, quantize=arguments.quantize)
    rng = Random(arguments.seed)
    right, asked, pictures = Counter(), Counter(), []

    def draw(text: str, seed: int) -> Image.Image:
        result = model.generate_image(
            seed=seed,
            prompt=text,
            num_inference_steps=NATIVE_STEPS,
            height=NATIVE_PX,
            width=NATIVE_PX,
            guidance=arguments.guidance,
        )
        pictures.append(result.image)
        return result.image

    for index, scene in enumerate(evaluation_scenes(arguments.count, arguments.seed)):
        text = prompt(scene, rng)
        verdict = judge(scene, draw(text, index))
        verdict["everything"] = all(verdict.values())
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
        if arguments.verbose and not verdict["everything"]:
            print(index, text, [name for name, holds in verdict.items() if not holds])
    for index, scene in enumerate(icon_scenes(arguments.seed) if arguments.icons else []):
        found = objects(draw(prompt(scene, rng), index))
        asked["icon outline"] += 1
        right["icon outline"] += bool(found) and nearest_kind(found[0], tuple(ICONS)) == scene.groups[0].kind
    print(json.dumps({name: f"{right[name]}/{asked[name]}" for name in asked}))
    if arguments.sheet:
        _contact_sheet(pictures, arguments.sheet)


if __name__ == "__main__":
    main()
