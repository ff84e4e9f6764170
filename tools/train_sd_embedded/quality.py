"""Quality of the trained model: `python -m tools.train_sd_embedded.quality FOLDER --sheet docs/sd-tiny.png`.

Draws prompts whose combination of kind, colour and background was never trained on, from the shipped weights, and
recognises the content from the pixels.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image, ImageDraw, ImageFont
from transformers import CLIPTextModel

from tools.train_embedded.judging import evaluation_scenes, icon_scenes, judge, ranked_icons
from tools.train_embedded.reading import objects
from tools.train_embedded.scenes import COLOURS, FIRST_KINDS, Group, Scene, held_out, prompt, with_article

from .autoencoder import decoded_images
from .captions import is_single
from .data import KNOWN_ICONS
from .geometry import NATIVE_PX
from .sampling import draw
from .tokens import padded

BATCH = 25
APART = 8.0
"""Minimum root mean square distance of two seeds' pixels, in grey levels of 256, to count as different."""

WAYS = (
    ("Euler", 20, 5.0, 1),
    ("Euler", 20, 7.0, 1),
    ("Euler a", 20, 5.0, 1),
    ("DPM++ 2M Karras", 15, 5.0, 1),
    ("DDIM", 20, 5.0, 1),
    ("Euler", 20, 5.0, 2),
)
"""Sampler, steps, CFG scale and clip skip of each row of the table."""

SHEET_COLUMNS, CAPTION_PX = 8, 30


class ShippedModel:
    """The model in a folder, in float32."""

    def __init__(self, folder: Path) -> None:
        self._text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        self._unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()

    def context(self, texts: list[str], clip_skip: int = 1) -> torch.Tensor:
        """Normed hidden states (N x 77 x d) of prompts, `clip_skip` - 1 layers before the last."""
        ids = torch.tensor([padded(text) for text in texts])
        output = self._text(input_ids=ids, output_hidden_states=True)
        if clip_skip == 1:
            return output.last_hidden_state
        return getattr(self._text, "text_model", self._text).final_layer_norm(output.hidden_states[-clip_skip])

    def noise(self, scaled: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The predicted noise in latents N x 4 x h x w of variance 1."""
        return self._unet(scaled, timesteps, encoder_hidden_states=context, return_dict=False)[0]

    def images(
        self, prompts: Sequence[str], seed: int, *, negatives: Sequence[str] | None = None, way: tuple = WAYS[0]
    ) -> np.ndarray:
        """uint8 images N x 128 x 128 x 3 of prompts."""
        sampler, steps, cfg, clip_skip = way
        drawn = []
        for start in range(0, len(prompts), BATCH):
            some = slice(start, start + BATCH)
            latents = draw(
                self, list(prompts[some]), seed + start, negatives=list(negatives[some]) if negatives else None,
                cfg=cfg, steps=steps, sampler=sampler, clip_skip=clip_skip,
            )  # fmt: skip
            drawn.append(decoded_images(self.vae, latents))
        return np.concatenate(drawn)


def say(what: str, right: int, asked: int) -> None:
    print(f"{what:60} {right:4} of {asked:4}   {100 * right / max(1, asked):5.1f} %", flush=True)


def simple_scenes(count: int, seed: int) -> list[Scene]:
    """One of the six first shapes in a colour on a background, a combination that was never trained on."""
    rng, scenes = Random(seed), []
    while len(scenes) < count:
        colour, background = rng.sample(list(COLOURS), 2)
        scene = Scene((Group(rng.choice(FIRST_KINDS), colour),), background)
        scenes += [scene] if held_out(scene) else []
    return scenes


def simple_prompt(scene: Scene) -> str:
    """`a red circle on a blue background`."""
    group = scene.groups[0]
    return f"{with_article(f'{group.colour} {group.kind}')} on {with_article(f'{scene.background} background')}"


def judged(title: str, scenes: list[Scene], images: np.ndarray) -> None:
    """Print how many images are right, by property."""
    right, asked = Counter[str](), Counter[str]()
    for scene, image in zip(scenes, images, strict=True):
        verdict = judge(scene, Image.fromarray(image))
        verdict["everything"] = all(verdict.values())
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
    for name in asked:
        say(f"{title}: {name}", right[name], asked[name])


def icons(model: ShippedModel, seed: int, each: int) -> tuple[list[str], np.ndarray]:
    """Print how many icons are the most similar of those that the model knows."""
    rng = Random(seed)
    scenes = [scene for scene in icon_scenes(seed, each) if scene.groups[0].kind in KNOWN_ICONS]
    texts = [prompt(scene, rng) for scene in scenes]
    images = model.images(texts, seed)
    first = three = 0
    for scene, image in zip(scenes, images, strict=True):
        ranked = [kind for kind in ranked_icons(scene, Image.fromarray(image)) if kind in KNOWN_ICONS]
        first += ranked[:1] == [scene.groups[0].kind]
        three += scene.groups[0].kind in ranked[:3]
    say("icon: the most similar of twelve", first, len(scenes))
    say("icon: among the three most similar", three, len(scenes))
    return texts, images


def negative_prompts(model: ShippedModel, seed: int) -> tuple[list[str], np.ndarray]:
    """Print how often a colour in the negative prompt changes an object that the prompt wants in that colour."""
    cases = [(kind, colour) for kind in FIRST_KINDS for colour in ("red", "orange", "green", "blue")]
    texts = [with_article(f"{colour} {kind}") for kind, colour in cases]

    def coloured(images: np.ndarray) -> int:
        found = [objects(Image.fromarray(image)) for image in images]
        return sum(bool(things) and things[0].colour == c for things, (_, c) in zip(found, cases, strict=True))

    plain, changed = (
        model.images(texts, seed, negatives=negatives) for negatives in (None, [colour for _, colour in cases])
    )
    say("without negative prompt: the object has its colour", coloured(plain), len(cases))
    say("colour in the negative prompt: it has another", len(cases) - coloured(changed), len(cases))
    shown = [i for i, (kind, _) in enumerate(cases) if kind in ("circle", "star")][::2]
    captions = [text for i in shown for text in (texts[i], f"{texts[i]}, not: {cases[i][1]}")]
    return captions, np.stack([image for i in shown for image in (plain[i], changed[i])])


def contact_sheet(texts: list[str], images: np.ndarray, path: Path) -> None:
    """Images with their prompts below, in one PNG file."""
    width, height = NATIVE_PX + 6, NATIVE_PX + CAPTION_PX
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, ceil(len(texts) / SHEET_COLUMNS) * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (text, image) in enumerate(zip(texts, images, strict=True)):
        x, y = number % SHEET_COLUMNS * width + 3, number // SHEET_COLUMNS * height + 3
        sheet.paste(Image.fromarray(image), (x, y))
        caption = "\n".join(textwrap.wrap(text, 25)[:2])
        pen.multiline_text((x, y + NATIVE_PX + 1), caption, fill=(60, 60, 60), font=font, spacing=1)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Print the table, and save a sheet of examples."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_sd_embedded.quality", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100, help="prompts of a row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="where to put a contact sheet")
    arguments = parser.parse_args()
    model, seed = ShippedModel(arguments.folder), arguments.seed

    plain = simple_scenes(arguments.count, seed)
    simple_texts = [simple_prompt(scene) for scene in plain]
    simple = model.images(simple_texts, seed)
    judged("simple", plain, simple)
    for way in WAYS[1:]:
        sampler, steps, cfg, clip_skip = way
        shown = model.images(simple_texts, seed, way=way)
        right = sum(all(judge(s, Image.fromarray(i)).values()) for s, i in zip(plain, shown, strict=True))
        say(f"simple, {sampler} {steps} steps, CFG {cfg:g}, clip skip {clip_skip}: everything", right, len(plain))
    rng = Random(seed)
    scenes = [scene for scene in evaluation_scenes(4 * arguments.count, seed, everything=False) if is_single(scene)]
    scenes = scenes[: arguments.count]
    texts = [prompt(scene, rng) for scene in scenes]
    worded = model.images(texts, seed)
    judged("freely worded", scenes, worded)
    negative_texts, negative_images = negative_prompts(model, seed)
    again = model.images(simple_texts[:BATCH], seed + 1000).astype(float)
    distances = np.sqrt(((again - simple[:BATCH]) ** 2).mean(axis=(1, 2, 3)))
    say(f"two seeds at least {APART:g} grey levels apart", int((distances >= APART).sum()), len(distances))
    parts = [(simple_texts[:16], simple[:16]), (texts[:16], worded[:16]), (negative_texts, negative_images)]
    if json.loads((arguments.folder / "training.json").read_text(encoding="utf-8"))["kinds"] == "all":
        for title, everything in (("several of six shapes", False), ("all shapes", True)):
            scenes = evaluation_scenes(arguments.count, seed, everything)
            texts = [prompt(scene, rng) for scene in scenes]
            drawn = model.images(texts, seed)
            judged(title, scenes, drawn)
            parts.append((texts[:16], drawn[:16]))
        parts.append(icons(model, seed, each=4))
    if arguments.sheet:
        texts = [text for part in parts for text in part[0]]
        contact_sheet(texts, np.concatenate([part[1] for part in parts]), arguments.sheet)


if __name__ == "__main__":
    main()
