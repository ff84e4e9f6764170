"""A stand-in for mlx-vlm 0.7.6: the three functions the OCR child calls, with their names and parameters.

What it was called with goes to `calls.jsonl` in the folder of the weights; what it reads is in `text.txt` there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Config:
    model_type: str


@dataclass
class Model:
    folder: Path
    config: Config


@dataclass
class Processor:
    folder: Path


@dataclass
class GenerationResult:
    text: str
    finish_reason: str | None


def note(folder: Path, call: str, **values: Any) -> None:
    with (folder / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"call": call, **values}) + "\n")


def load(path_or_hf_repo: str, adapter_path: str | None = None, **kwargs: Any) -> tuple[Model, Processor]:
    folder = Path(path_or_hf_repo)
    note(folder, "load", path=path_or_hf_repo, adapter_path=adapter_path, **kwargs)
    if (folder / "broken").exists():
        raise ValueError(f"No safetensors found in {folder}")
    config = Config(**json.loads((folder / "config.json").read_text()))
    return Model(folder, config), Processor(folder)


def generate(
    model: Model, processor: Processor, prompt: str, image: list[Any] | None = None, **kwargs: Any
) -> GenerationResult:
    assert processor.folder == model.folder
    seen = [{"mode": picture.mode, "size": picture.size} for picture in image or []]
    note(model.folder, "generate", prompt=prompt, image=seen, **kwargs)
    text = (model.folder / "text.txt").read_text()
    return GenerationResult(text, "length" if "again and again" in text else "stop")
