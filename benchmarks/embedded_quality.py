"""Quality of the embedded model: python -m benchmarks.embedded_quality --sheet docs/embedded-model.png

Generates held-out prompts through the gateway and recognises the result from its pixels. Composed prompts combine a
kind, a colour and a background that training never combined.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import tempfile
import textwrap
from collections import Counter
from math import ceil
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.catalog import EMBEDDED_PATH
from tests.support.live import Live
from tools.train_embedded.judging import edit_cases, evaluation_scenes, icon_scenes, judge, pair_cases, ranked_icons
from tools.train_embedded.reading import is_night
from tools.train_embedded.scenes import Scene, Style, prompt, render

MODEL = "flux2-tiny"
SIZE_PX = 128
SIZE = f"{SIZE_PX}x{SIZE_PX}"
KNOWS_ALL = json.loads((EMBEDDED_PATH / "training.json").read_text(encoding="utf-8"))["kinds"] == "all"
"""Whether the shipped weights were trained on all shapes and icons, or only on the first shapes."""

APART = 8.0
"""Minimum root mean square distance of two seeds' pixels, in grey levels of 256, to count as different."""

TAGS = {
    "SillyTavern's prefix": "best quality, absurdres, masterpiece, ",
    "text-generation-webui's prefix": "(Masterpiece:1.1), detailed, intricate, colorful, ",
}
"""Tags that these programs put before every prompt by default."""

SHEET_COLUMNS, CAPTION_PX = 8, 30

Shown = list[tuple[str, Image.Image]]


class Artist:
    """Client of a gateway with the embedded model, in the OpenAI protocol."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def draw(self, text: str, seed: int, **said: Any) -> Image.Image:
        body = {"model": MODEL, "prompt": text, "seed": seed, "size": SIZE, "response_format": "b64_json", **said}
        return _shown(self._client.post("/v1/images/generations", json=body))

    def change(self, words: str, seed: int, *before: Image.Image) -> Image.Image:
        body = {"model": MODEL, "prompt": words, "seed": str(seed), "size": SIZE, "response_format": "b64_json"}
        files = [("image[]", _png(image)) for image in before]
        return _shown(self._client.post("/v1/images/edits", data=body, files=files))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _shown(answer: httpx.Response) -> Image.Image:
    answer.raise_for_status()
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).convert("RGB")


def composed(artist: Artist, count: int, seed: int) -> Shown:
    """Result for shapes with colours, backgrounds, counts, sizes, places and relations."""
    rng, right, asked, shown = Random(seed), Counter[str](), Counter[str](), []
    for number, scene in enumerate(evaluation_scenes(count, seed, KNOWS_ALL)):
        text = prompt(scene, rng)
        image = artist.draw(text, number)
        verdict = judge(scene, image)
        verdict["everything"] = all(verdict.values())
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
        shown.append((text, image))
    for name in asked:
        say(f"{name} right", right[name], asked[name])
    return shown


def icons(artist: Artist, seed: int, each: int) -> Shown:
    """Result for single icons: whether the most similar of all icons is the requested one."""
    rng, first, three, shown = Random(seed), 0, 0, []
    for number, scene in enumerate(icon_scenes(seed, each)):
        text = prompt(scene, rng)
        image = artist.draw(text, number)
        likest = ranked_icons(scene, image)[:3]
        first += likest[:1] == [scene.groups[0].kind]
        three += scene.groups[0].kind in likest
        shown.append((text, image))
    say("icon the likest", first, len(shown))
    say("icon among the three likest", three, len(shown))
    return shown


def variety(artist: Artist, count: int, seed: int) -> None:
    """Distance between two seeds of one prompt."""
    rng, distances = Random(seed), []
    for scene in evaluation_scenes(count, seed + 1, KNOWS_ALL):
        text = prompt(scene, rng)
        one, other = (np.asarray(artist.draw(text, number), dtype=float) for number in (1, 2))
        distances.append(float(np.sqrt(np.mean((one - other) ** 2))))
    say(f"two seeds at least {APART:g} grey levels apart", sum(d >= APART for d in distances), count)


def edits(artist: Artist, count: int, seed: int) -> Shown:
    """Result for changes of a reference image: whether the whole scene is as requested."""
    rng, right, asked, shown = Random(seed), Counter[str](), Counter[str](), []
    for number, edit in enumerate(edit_cases(count, seed, KNOWS_ALL)):
        before = render(edit.before, Style.sample(rng))
        after = artist.change(edit.words, number, before)
        holds = all(judge(edit.after, after).values())
        for name in (edit.what, "whatever"):
            asked[name] += 1
            right[name] += holds
        shown += [("", before), (edit.words, after)]
    for name in asked:
        say(f"change of {name} right", right[name], asked[name])
    return shown


def pairs(artist: Artist, count: int, seed: int) -> Shown:
    """Result for a thing of one reference image beside a thing of another."""
    rng, right, shown = Random(seed), 0, []
    for number, pair in enumerate(pair_cases(count, seed)):
        first, second = (render(scene, Style.sample(rng)) for scene in (pair.first, pair.second))
        drawn = artist.change(pair.words, number, first, second)
        right += all(judge(pair.after, drawn).values())
        shown += [("", first), ("", second), (pair.words, drawn)]
    say("two pictures in one right", right, count)
    return shown


def tagged(artist: Artist, seed: int) -> None:
    """Result for prompts after the tags of these programs."""
    for name, tags in TAGS.items():
        rng, right = Random(seed), 0
        for number, scene in enumerate(evaluation_scenes(12, seed, KNOWS_ALL)):
            right += all(judge(scene, artist.draw(tags + prompt(scene, rng), number)).values())
        say(name, right, 12)


def by_day(count: int, seed: int) -> list[Scene]:
    """Scenes without dark backgrounds or objects."""
    scenes = evaluation_scenes(3 * count, seed, KNOWS_ALL)
    return [s for s in scenes if s.background != "black" and all(g.colour != "black" for g in s.groups)][:count]


def at_night(artist: Artist, count: int, seed: int) -> Shown:
    """Result for the LoRA `night`: whether only its backgrounds are dark, and the objects are still there."""
    rng, effects, objects_kept, shown = Random(seed), 0, 0, []
    for number, scene in enumerate(by_day(count, seed + 2)):
        text = prompt(scene, rng)
        image = artist.draw(text, number, loras=[{"name": "night", "scale": 1.0}])
        effects += is_night(image) and not is_night(artist.draw(text, number))
        objects_kept += judge(scene, image)["shape"]
        shown.append((f"{text} (night)", image))
    say("the LoRA's effect shows", effects, count)
    say("outlines right with the LoRA", objects_kept, count)
    return shown


def say(what: str, right: int, asked: int) -> None:
    print(f"{what:40} {100 * right / max(1, asked):5.1f} %   {right} of {asked}")


def contact_sheet(shown: Shown, path: Path) -> None:
    """Sheet of images with their prompts below."""
    width, height = SIZE_PX + 6, SIZE_PX + CAPTION_PX
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, ceil(len(shown) / SHEET_COLUMNS) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (text, image) in enumerate(shown):
        x, y = number % SHEET_COLUMNS * width + 3, number // SHEET_COLUMNS * height + 3
        sheet.paste(image, (x, y))
        caption = "\n".join(textwrap.wrap(text, 25)[:2])
        draw.multiline_text((x, y + SIZE_PX + 1), caption, fill=(60, 60, 60), font=font, spacing=1)
    sheet.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="composed prompts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="where to put a contact sheet")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gateway = Live(Path(folder), backend="mlx").start()
        try:
            with httpx.Client(base_url=gateway.url, timeout=120) as client:
                artist = Artist(client)
                shapes = composed(artist, arguments.count, arguments.seed)
                things = icons(artist, arguments.seed, each=4) if KNOWS_ALL else []
                variety(artist, 60, arguments.seed)
                changed = edits(artist, 100, arguments.seed)
                paired = pairs(artist, 100, arguments.seed)
                tagged(artist, arguments.seed)
                dark = at_night(artist, 60, arguments.seed)
        finally:
            gateway.stop()
    if arguments.sheet:
        contact_sheet([*shapes[:32], *things[::4], *changed[:16], *paired[:24], *dark[:8]], arguments.sheet)


if __name__ == "__main__":
    main()
