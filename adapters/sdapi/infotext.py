"""What png-info shows of an infotext, whose grammar is in `gateway.images.infotext`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.images.infotext import compose as compose
from gateway.images.infotext import parse as parse

DEFAULTS: Mapping[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Cache FP16 weight for LoRA": False,
    "Emphasis": "Original",
    "Refiner switch by sampling steps": False,
}
"""What a missing key means. Source: parse_generation_parameters."""


def with_defaults(found: Mapping[str, str]) -> dict[str, Any]:
    """What png-info shows: the pairs, and what the missing ones mean."""
    return {**found, **{key: value for key, value in DEFAULTS.items() if key not in found}}
