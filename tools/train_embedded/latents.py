"""Stage 2: training scenes, rendered and encoded once."""

import json
import logging
import os
from dataclasses import asdict
from multiprocessing import Pool
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2

from .geometry import LATENT_TOKENS
from .scenes import Group, Scene, Style, render, training_scene
from .vae import encode, patchify, to_signal

log = logging.getLogger(__name__)

BATCH = 64


def _make(seed: int) -> tuple[Scene, Style, np.ndarray]:
    rng = Random(seed)
    scene, style = training_scene(rng), Style.sample(rng)
    return scene, style, np.asarray(render(scene, style))


def scene_from_json(data: dict) -> Scene:
    """The scene that `asdict` turned into JSON."""
    groups = tuple(Group(**group) for group in data["groups"])
    return Scene(groups, data["background"], data["position"], data["relation"])


@torch.no_grad()
def encode_dataset(work: Path, count: int, seed: int) -> None:
    """Writes `latents.npy` (N x tokens x 128, float16), `styles.npy` and `scenes.jsonl`."""
    if (work / "scenes.jsonl").exists():
        return
    vae = AutoencoderKLFlux2.from_pretrained(work / "vae").eval().to(memory_format=torch.channels_last)
    mean = vae.bn.running_mean[None, :, None, None]
    deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)[None, :, None, None]
    latents = np.lib.format.open_memmap(
        work / "latents.npy", mode="w+", dtype=np.float16, shape=(count, LATENT_TOKENS, 128)
    )
    scenes, styles, pictures, done = [], [], [], 0
    with Pool(os.cpu_count()) as pool:
        for scene, style, picture in pool.imap(
            _make, range(10_000_000 * (seed + 1), 10_000_000 * (seed + 1) + count), 64
        ):
            scenes.append(scene)
            styles.append(style.numbers)
            pictures.append(picture)
            if len(pictures) == BATCH or len(scenes) == count:
                signal = to_signal(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
                with torch.autocast("cpu", torch.bfloat16):
                    packed = patchify(encode(vae, signal)).float()
                packed = ((packed - mean) / deviation).flatten(2).transpose(1, 2)
                latents[done : done + len(packed)] = packed.numpy().astype(np.float16)
                done, pictures = done + len(packed), []
                if done % (BATCH * 50) == 0:
                    log.info("encoded %d of %d", done, count)
    latents.flush()
    np.save(work / "styles.npy", np.array(styles, dtype=np.float32))
    lines = "\n".join(json.dumps(asdict(scene)) for scene in scenes)
    (work / "scenes.jsonl").write_text(lines, encoding="utf-8")


def load_dataset(work: Path) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
    """The encoded pictures, their styles and what they show."""
    latents = torch.from_numpy(np.load(work / "latents.npy"))
    styles = torch.from_numpy(np.load(work / "styles.npy"))
    lines = (work / "scenes.jsonl").read_text(encoding="utf-8").splitlines()
    return latents, styles, [scene_from_json(json.loads(line)) for line in lines]
