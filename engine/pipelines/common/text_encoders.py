"""Text encoders of a pipeline, released once they have encoded a prompt. It knows no family."""

from __future__ import annotations

import gc
from typing import Any

from mlx import nn

from engine.pipelines.common.loading import evaluate_parameters

NAMES = ("text_encoder", "t5_text_encoder", "clip_text_encoder", "qwen_vl_encoder")
"""Attributes that mflux's own memory saver deletes as well. Ming's encoder is used with a connector, and is kept."""
KEPT = "connector"


class TextEncoders:
    """Text encoders of a pipeline. `release` is final: another prompt needs the model to be loaded again."""

    def __init__(self, pipeline: Any, names: tuple[str, ...] = NAMES) -> None:
        self._read_key: str | None = None
        found = () if hasattr(pipeline, KEPT) else names
        self._places = [_place(pipeline, name) for name in found if getattr(pipeline, name, None) is not None]
        # While an image is generated, families replace some of these attributes.
        parts = pipeline.children() if isinstance(pipeline, nn.Module) else vars(pipeline)
        self._others = [part for name, part in parts.items() if name not in names and isinstance(part, nn.Module)]

    def can_read(self, prompt_key: str | None) -> bool:
        """Whether the encoders are in memory, or have encoded the prompt with this key."""
        return self._read_key is None or self._read_key == prompt_key

    def load(self) -> None:
        """Load the encoders' weights where they are not in memory yet."""
        for owner, name in self._places:
            if (part := getattr(owner, name)) is not None:
                evaluate_parameters(part)

    def release(self, prompt_key: str) -> None:
        """Delete the encoders, which have encoded the prompt with this key. The other parts are loaded where they are
        not in memory yet.
        """
        for owner, name in self._places:
            setattr(owner, name, None)
        if self._places:
            self._read_key = prompt_key
            gc.collect()
        for part in self._others:
            evaluate_parameters(part)


def _place(pipeline: Any, name: str) -> tuple[Any, str]:
    """Object and attribute that hold the weights: Lens wraps its encoder in a class that mflux calls."""
    part = getattr(pipeline, name)
    return (pipeline, name) if isinstance(part, nn.Module) else (part, "model")
