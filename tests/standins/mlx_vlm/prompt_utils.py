"""The one function of `mlx_vlm.prompt_utils` that is called."""

from __future__ import annotations

from typing import Any

from mlx_vlm import Processor, note


def apply_chat_template(processor: Processor, config: Any, prompt: str, num_images: int = 0, **kwargs: Any) -> str:
    note(processor.folder, "apply_chat_template", prompt=prompt, num_images=num_images, **kwargs)
    return f"<{config.model_type}>{prompt}"
