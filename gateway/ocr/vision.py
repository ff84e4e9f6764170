"""A vision model of mlx-vlm as a function from a picture to its lines; runs in the child.

Weights are a folder on this machine: nothing is downloaded, and no code that lies beside them is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.jobs.facts import TextLine
from gateway.ocr.pages import Unreadable
from gateway.ocr.reader import Seen

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_TOKENS = 8192
"""A dense page has 2000; a model that goes beyond this repeats itself."""
MAX_EDGE_PX = 2048
"""A4 at 175 dpi. Some families turn every 28x28 pixels into a token."""
PROMPTS = (("paddleocr_vl", "OCR:"), ("deepseek", "Free OCR."), ("", "Extract all text from this image."))
"""What a family is asked, by the beginning of its `model_type`. Source: the README files of mlx-vlm's models."""


class VisionReader:
    """The model in memory."""

    def __init__(self, folder: Path) -> None:
        # Such a key makes mlx-vlm import Python from the folder.
        if "model_file" in json.loads((folder / "config.json").read_bytes()):
            raise ValueError("the checkpoint brings code of its own")
        import mlx_vlm
        from mlx_vlm.prompt_utils import apply_chat_template

        self._generate: Any = mlx_vlm.generate
        self._model, self._processor = mlx_vlm.load(str(folder))
        config = self._model.config
        self._prompt = apply_chat_template(self._processor, config, prompt_for(config.model_type), num_images=1)

    def lines(self, picture: Image) -> tuple[TextLine, ...]:
        """What is written in an RGB picture, in reading order; where, and how sure that is, the model does not say.

        Raises: Unreadable.
        """
        seen = picture.copy()
        seen.thumbnail((MAX_EDGE_PX, MAX_EDGE_PX))
        found = self._generate(
            self._model, self._processor, self._prompt, image=[seen], max_tokens=MAX_TOKENS, temperature=0.0
        )
        if found.finish_reason == "length":
            raise Unreadable("The page has more text than the vision model can write; rapidocr reads it.")
        return tuple(TextLine(text=line) for line in found.text.strip().splitlines())

    def read(self, picture: Image, budget_s: float | None, told: Callable[[float], object]) -> Seen:
        """As `lines`: the model says of nothing that it could not read it, and cannot be interrupted."""
        return Seen(self.lines(picture))


def prompt_for(model_type: str) -> str:
    return next(prompt for family, prompt in PROMPTS if model_type.startswith(family))
