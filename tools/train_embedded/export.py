"""Model folder that is shipped: written at the end, or read for further training."""

import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2
from safetensors.torch import load_file, save_file

from .basis import Basis
from .latents import render_pool
from .vae import latents_of

BASIS_IMAGES = 600
"""Images from which a basis is recovered; 256 cells each."""

PARTS = ("transformer", "text_encoder", "vae", "tokenizer")
PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "numpy", "pillow")


def machine_class() -> str:
    """Kind of the training machine, such as `2-core x86_64, CPU`."""
    return f"{os.cpu_count()}-core {platform.machine()}, {'GPU' if torch.cuda.is_available() else 'CPU'}"


def _to_bfloat16(source: Path, target: Path) -> None:
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in load_file(source).items()}
    save_file({k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}, target, {"format": "pt"})


def _copy_config(source: Path, target: Path) -> None:
    config = json.loads(source.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = "bfloat16"
    target.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def export_model(work: Path, out: Path, facts: dict[str, Any]) -> None:
    """Copy the trained parts to `out` in bfloat16, with `training.json`, and LoRAs to `loras/` next to it."""
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
        (out / part).mkdir(parents=True)
        for source in sorted((work / part).iterdir()):
            target = out / part / source.name
            if source.suffix == ".safetensors":
                _to_bfloat16(source, target)
            elif part == "tokenizer":
                shutil.copyfile(source, target)
            elif source.name == "config.json":
                _copy_config(source, target)
    loras = out.parent / "loras"
    loras.mkdir(exist_ok=True)
    for source in sorted((work / "loras").glob("*.safetensors")):
        shutil.copyfile(source, loras / source.name)
    facts = {**facts, "machine": machine_class(), "versions": {name: version(name) for name in PACKAGES}}
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def import_model(source: Path, work: Path, seed: int) -> dict[str, Any]:
    """Copy a trained model's parts to the work folder, with its VAE's basis; returns its `training.json`."""
    for part in PARTS:
        shutil.copytree(source / part, work / part, dirs_exist_ok=True)
    images = render_pool(seed + 2_000_000, BASIS_IMAGES)
    vae = AutoencoderKLFlux2.from_pretrained(work / "vae").eval()
    Basis.of_latents(images, latents_of(vae, images)).save(work / "basis.npz")
    facts = json.loads((source / "training.json").read_text(encoding="utf-8"))
    return {key: value for key, value in facts.items() if key not in ("machine", "versions")}
