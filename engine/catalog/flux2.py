"""FLUX.2 Klein."""

from __future__ import annotations

from engine.catalog.revisions import REVISIONS
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
    """Row of a FLUX.2 Klein model. `size` is 4B or 9B, as on the hub. For the base models mflux's command uses guidance
    1, their model cards 4.
    """
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
        default_steps=4 if distilled else 50,
        useful_max_steps=8 if distilled else 100,
        default_guidance=1.0 if distilled else 4.0,
        guidance_range=(1.0, 1.0) if distilled else (1.0, 10.0),
        max_sequence=512,
        max_references=4,
    )


def _stored(spec: ModelSpec, bits: int, size_gb: float) -> ModelSpec:
    """Row of a repository where somebody published the model quantised and saved by mflux."""
    size = spec.geometry[-2:].upper()
    repo = f"AITRADER/FLUX2-klein-{'' if spec.distilled else 'base-'}{size}-mlx-{bits}bit"
    pinned = "" if repo in REVISIONS else "; no commit is pinned: the first that is fetched stays"
    return spec.model_copy(
        update={
            "name": f"{spec.name}-mlx-{bits}bit",
            "repo": repo,
            "gated": False,
            "description": f"{spec.description}, stored at {bits} bits by AITRADER" + pinned,
            "size_gb": size_gb,
            "stored_bits": bits,
        }
    )


_CACHED = _klein("9B", distilled=True).model_copy(
    update={
        "name": "flux2-klein-9b-kv",
        "geometry": "flux2-klein-9b-kv",
        "repo": "black-forest-labs/FLUX.2-klein-9b-kv",
        "description": "FLUX.2 Klein distilled, 9B parameters: reads reference pictures once, not at every step",
    }
)

_WHOLE = (
    _klein("4B", distilled=True),
    _klein("9B", distilled=True),
    _CACHED,
    _klein("4B", distilled=False),
    _klein("9B", distilled=False),
)

_STORED_GB = {"4b": {4: 4.6, 8: 8.6}, "9b": {4: 9.8, 8: 17.9}}
"""GB on disk of quantised repositories. There is none of the 9B base model, nor of the one that caches its references.
"""

_DEV = ModelSpec(
    name="flux2-dev",
    family="flux2",
    geometry="flux2-dev",
    unavailable="FLUX.2-dev cannot be drawn with: mflux 0.24 has no loader for it. Use flux2-klein-9b.",
    repo="black-forest-labs/FLUX.2-dev",
    gated=True,
    licence="FLUX Non-Commercial",
    description="FLUX.2 dev, 32B parameters",
    size_gb=113.0,
    distilled=False,
    default_steps=50,
    useful_max_steps=100,
    default_guidance=4.0,
    guidance_range=(1.0, 10.0),
)


def _rows(spec: ModelSpec) -> tuple[ModelSpec, ...]:
    stored = {} if spec.name in ("flux2-klein-base-9b", _CACHED.name) else _STORED_GB[spec.geometry[-2:]]
    whole, *quantised = at_load(spec, 3, 4, 6, 8)
    return (whole, *(_stored(spec, bits, size_gb) for bits, size_gb in stored.items()), *quantised)


ROWS = (*(row for spec in _WHOLE for row in _rows(spec)), *at_load(_DEV, 4, 8))
