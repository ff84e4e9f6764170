"""The models we know how to draw with: pure data, capabilities included. Knows no disk and no MLX."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Family = Literal["flux2", "flux2_tiny"]

EMBEDDED = "flux2-tiny"
EMBEDDED_PATH = Path(__file__).parent / "embedded" / EMBEDDED


class ModelSpec(BaseModel):
    """One row. Sizes in pixels; `native_px` is set where a model draws right at that edge length only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Family
    geometry: str
    """Which of the family's architectures: mflux's name for it."""
    repo: str | None = None
    """Hub repository the weights come from."""
    licence: str
    description: str
    distilled: bool
    """A distilled model draws at guidance 1 only, in few steps."""
    default_steps: int
    useful_max_steps: int
    default_guidance: float = 1.0
    default_px: int = 1024
    native_px: int | None = None
    quantize: int | None = None
    """Bits to quantise to at load; None leaves it to the settings."""
    max_references: int = 0
    """Pictures the model can follow at once; 0 for one that cannot edit."""
    size_gb: float


def _klein(name: str, geometry: str, repo: str, licence: str, size_gb: float, *, distilled: bool) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="flux2",
        geometry=geometry,
        repo=repo,
        licence=licence,
        description=f"FLUX.2 Klein {'distilled' if distilled else 'base'}, {geometry[-2:].upper()} parameters",
        distilled=distilled,
        default_steps=4 if distilled else 25,
        useful_max_steps=8 if distilled else 100,
        default_guidance=1.0 if distilled else 4.0,
        max_references=4,
        size_gb=size_gb,
    )


_WHOLE = (
    _klein("flux2-klein-4b", "flux2-klein-4b", "black-forest-labs/FLUX.2-klein-4B", "Apache-2.0", 16.0, distilled=True),
    _klein(
        "flux2-klein-9b",
        "flux2-klein-9b",
        "black-forest-labs/FLUX.2-klein-9B",
        "FLUX Non-Commercial",
        36.0,
        distilled=True,
    ),
    _klein(
        "flux2-klein-base-4b",
        "flux2-klein-base-4b",
        "black-forest-labs/FLUX.2-klein-base-4B",
        "Apache-2.0",
        16.0,
        distilled=False,
    ),
    _klein(
        "flux2-klein-base-9b",
        "flux2-klein-base-9b",
        "black-forest-labs/FLUX.2-klein-base-9B",
        "FLUX Non-Commercial",
        36.0,
        distilled=False,
    ),
)


def _quantised(spec: ModelSpec, bits: int) -> ModelSpec:
    return spec.model_copy(
        update={
            "name": f"{spec.name}-{bits}-bit",
            "quantize": bits,
            "description": f"{spec.description}, quantised to {bits} bits at load",
        }
    )


_TINY = ModelSpec(
    name=EMBEDDED,
    family="flux2_tiny",
    geometry=EMBEDDED,
    licence="Apache-2.0",
    description="The embedded model: coloured shapes, drawn by the FLUX.2 pipeline on any machine",
    distilled=True,
    default_steps=4,
    useful_max_steps=8,
    default_px=128,
    native_px=128,
    size_gb=0.02,
)

CATALOG: tuple[ModelSpec, ...] = (
    _TINY,
    *_WHOLE,
    *(_quantised(spec, bits) for spec in _WHOLE for bits in (3, 4, 6, 8)),
)
