"""The text encoders of a pipeline, let go once they have read a prompt. Knows no family."""

from __future__ import annotations

import gc
from typing import Any

from mlx import nn

from engine.pipelines.common.loading import evaluate_parameters

NAMES = ("text_encoder", "t5_text_encoder", "clip_text_encoder", "qwen_vl_encoder")
"""What mflux's own saver of memory lets go as well. Ming's go with heads of their own, and stay."""
KEPT = "connector"


class TextEncoders:
    """`let_go` is for good: another prompt needs the model loaded anew, which reads the encoders first."""

    def __init__(self, pipeline: Any, names: tuple[str, ...] = NAMES) -> None:
        self._read_key: str | None = None
        found = () if hasattr(pipeline, KEPT) else names
        self._places = [_place(pipeline, name) for name in found if getattr(pipeline, name, None) is not None]
        # While a picture is drawn, families put something else in the place of some.
        parts = pipeline.children() if isinstance(pipeline, nn.Module) else vars(pipeline)
        self._others = [part for name, part in parts.items() if name not in names and isinstance(part, nn.Module)]

    def can_read(self, prompt_key: str | None) -> bool:
        """Whether they are here, or have read this."""
        return self._read_key is None or self._read_key == prompt_key

    def load(self) -> None:
        """Into memory where they are not yet, before they are asked."""
        for owner, name in self._places:
            if (part := getattr(owner, name)) is not None:
                evaluate_parameters(part)

    def release(self, prompt_key: str) -> None:
        """They have read this. What draws comes into memory where it is not yet."""
        for owner, name in self._places:
            setattr(owner, name, None)
        if self._places:
            self._read_key = prompt_key
            gc.collect()
        for part in self._others:
            evaluate_parameters(part)


def _place(pipeline: Any, name: str) -> tuple[Any, str]:
    """Whose attribute holds the weights: Lens wraps its encoder in a class that mflux calls for every picture."""
    part = getattr(pipeline, name)
    return (pipeline, name) if isinstance(part, nn.Module) else (part, "model")
