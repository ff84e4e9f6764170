"""Vision reader: an image to its lines of text, by a vision model of mlx-vlm; runs in the child.

Weights are a folder on this machine: nothing is downloaded, and no code in the folder is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.jobs.facts import TextLine
from gateway.ocr.pages import Unreadable
from gateway.ocr.reader import PageText

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_TOKENS = 8192
"""A dense page has 2000 tokens; a model that exceeds this repeats itself."""
MAX_EDGE_PX = 2048
"""Longest edge: A4 at 175 dpi. Some model families make a token of every 28x28 pixels."""
PROMPTS = (("paddleocr_vl", "OCR:"), ("deepseek", "Free OCR."), ("", "Extract all text from this image."))
"""Prompt of each family, by the beginning of its `model_type`. Source: the README files of mlx-vlm's models."""


class VisionReader:
    """The model in memory."""

    def __init__(self, folder: Path) -> None:
        # With such a key mlx-vlm would import Python files from the folder.
        if "model_file" in json.loads((folder / "config.json").read_bytes()):
            raise ValueError("the checkpoint brings code of its own")
        import mlx_vlm
        from mlx_vlm.prompt_utils import apply_chat_template

        self._generate: Any = mlx_vlm.generate
        self._model, self._processor = mlx_vlm.load(str(folder))
        config = self._model.config
        self._prompt = apply_chat_template(self._processor, config, prompt_for(config.model_type), num_images=1)

    def lines(self, image: Image) -> tuple[TextLine, ...]:
        """Lines of text in an RGB image, in reading order; the model gives neither positions nor scores.

        Raises: Unreadable.
        """
        small = image.copy()
        small.thumbnail((MAX_EDGE_PX, MAX_EDGE_PX))
        output = self._generate(
            self._model, self._processor, self._prompt, image=[small], max_tokens=MAX_TOKENS, temperature=0.0
        )
        if output.finish_reason == "length":
            raise Unreadable("The page has more text than the vision model can write; rapidocr reads it.")
        return tuple(TextLine(text=line) for line in output.text.strip().splitlines())

    def read(self, image: Image, budget_s: float | None, progress: Callable[[float], object]) -> PageText:
        """Like `lines`: the model marks nothing as unread and cannot be interrupted."""
        return PageText(self.lines(image))


def prompt_for(model_type: str) -> str:
    return next(prompt for family, prompt in PROMPTS if model_type.startswith(family))
