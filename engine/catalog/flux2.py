"""FLUX.2 Klein."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FILES = (
    "vae/*.safetensors",
    "vae/*.json",
    "transformer/*.safetensors",
    "transformer/*.json",
    "text_encoder/*.safetensors",
    "text_encoder/*.json",
    "tokenizer/**",
    "added_tokens.json",
    "chat_template.jinja",
)


def _klein(size: str, *, distilled: bool) -> ModelSpec:
    """`size` as the hub writes it: 4B or 9B."""
    name = f"flux2-klein-{'' if distilled else 'base-'}{size.lower()}"
    free = size == "4B"
    return ModelSpec(
        name=name,
        family="flux2",
        geometry=name,
        repo=f"black-forest-labs/FLUX.2-klein-{'' if distilled else 'base-'}{size}",
        files=_FILES,
        gated=not free,
        licence="Apache-2.0" if free else "FLUX Non-Commercial",
        description=f"FLUX.2 Klein {'distilled' if distilled else 'base'}, {size} parameters",
        size_gb=16.0 if free else 36.0,
        distilled=distilled,
        default_steps=4 if distilled else 25,
        useful_max_steps=8 if distilled else 100,
        default_guidance=1.0 if distilled else 4.0,
        guidance_range=(1.0, 1.0) if distilled else (1.0, 10.0),
        max_sequence=512,
        max_references=4,
    )


_WHOLE = (
    _klein("4B", distilled=True),
    _klein("9B", distilled=True),
    _klein("4B", distilled=False),
    _klein("9B", distilled=False),
)

ROWS = tuple(row for spec in _WHOLE for row in at_load(spec, 3, 4, 6, 8))
