"""FIBO and FIBO Lite as mflux 0.24 spells them, from JSON captions; plain text becomes a caption's short description.

The model that makes captions of requests is another one, and is not needed.
"""

from __future__ import annotations

import json
from typing import Any

from mflux.models.fibo.variants.txt2img.fibo import FIBO

from engine.backends.base import Model
from engine.families.base import Painter, Sketch
from engine.families.painter import built
from engine.families.standard import StandardPainter
from engine.protocol import Generate


def load(model: Model) -> Painter:
    """By the scheduler that mflux picks where none is named."""
    return FiboPainter(built(model, FIBO), loras=[], scheduler="flow_match_euler_discrete", arguments=_arguments)


class FiboPainter(StandardPainter):
    """Says prompts as captions."""

    def _prompt(self, sketch: Sketch) -> str:
        return captioned(sketch.plan.prompt)


def captioned(prompt: str) -> str:
    """The caption, or one whose short description the text is."""
    try:
        caption = json.loads(prompt)
    except ValueError:
        caption = None
    return prompt if isinstance(caption, dict) else json.dumps({"short_description": prompt}, ensure_ascii=False)


def _arguments(plan: Generate) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}
