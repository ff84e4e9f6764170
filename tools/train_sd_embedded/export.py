"""Model folder, in the layout of diffusers and in float16."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .geometry import SCHEDULER

PARTS = ("unet", "text_encoder", "vae")
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": [None, None],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""CLIP's tokenizer is not in the folder."""


def _write(content: dict[str, Any], target: Path) -> None:
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _named(name: str, part: str) -> str:
    """A tensor's name as Stable Diffusion's folders have it; newer transformers leave out `text_model.`."""
    return f"text_model.{name}" if part == "text_encoder" and not name.startswith("text_model.") else name


def export_model(work: Path, out: Path, facts: dict[str, Any]) -> None:
    """Copy the trained parts to `out` in float16, with `model_index.json` and `training.json`."""
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
        (out / part).mkdir(parents=True)
        for source in sorted((work / part).iterdir()):
            if source.suffix == ".safetensors":
                tensors = {_named(k, part): v.to(torch.float16).contiguous() for k, v in load_file(source).items()}
                save_file(tensors, out / part / source.name, {"format": "pt"})
            elif source.name == "config.json":
                config = json.loads(source.read_text(encoding="utf-8"))
                config.pop("_name_or_path", None)
                for key in ("dtype", "torch_dtype"):
                    if key in config:
                        config[key] = "float16"
                _write(config, out / part / source.name)
    (out / "scheduler").mkdir(exist_ok=True)
    _write(SCHEDULER, out / "scheduler" / "scheduler_config.json")
    _write(INDEX, out / "model_index.json")
    machine = f"{os.cpu_count()}-core {platform.machine()}, {'GPU' if torch.cuda.is_available() else 'CPU'}"
    _write({**facts, "machine": machine, "versions": {name: version(name) for name in PACKAGES}}, out / "training.json")
