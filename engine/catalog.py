"""The models we know how to draw with: pure data, capabilities included. Knows no disk and no MLX."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Family = Literal["flux1", "flux2", "flux2_tiny", "qwen", "z_image"]

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
    negative_prompt: bool = False
    """Whether the model stays away from what a second prompt says."""
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


_Z_IMAGE = (
    ModelSpec(
        name="z-image-turbo",
        family="z_image",
        geometry="z-image-turbo",
        repo="Tongyi-MAI/Z-Image-Turbo",
        licence="Apache-2.0",
        description="Z-Image-Turbo, 6B parameters, distilled",
        distilled=True,
        default_steps=9,
        useful_max_steps=16,
        size_gb=33.0,
    ),
    ModelSpec(
        name="z-image",
        family="z_image",
        geometry="z-image",
        repo="Tongyi-MAI/Z-Image",
        licence="Apache-2.0",
        description="Z-Image base, 6B parameters",
        distilled=False,
        default_steps=50,
        useful_max_steps=100,
        default_guidance=4.0,
        negative_prompt=True,
        size_gb=21.0,
    ),
)

_FLUX1 = (
    ModelSpec(
        name="flux1-schnell",
        family="flux1",
        geometry="schnell",
        repo="black-forest-labs/FLUX.1-schnell",
        licence="Apache-2.0",
        description="FLUX.1 schnell, 12B parameters, distilled",
        distilled=True,
        default_steps=4,
        useful_max_steps=8,
        size_gb=34.0,
    ),
    ModelSpec(
        name="flux1-dev",
        family="flux1",
        geometry="dev",
        repo="black-forest-labs/FLUX.1-dev",
        licence="FLUX Non-Commercial",
        description="FLUX.1 dev, 12B parameters",
        distilled=False,
        default_steps=25,
        useful_max_steps=100,
        default_guidance=3.5,
        size_gb=34.0,
    ),
    ModelSpec(
        name="flux1-krea-dev",
        family="flux1",
        geometry="krea-dev",
        repo="black-forest-labs/FLUX.1-Krea-dev",
        licence="FLUX Non-Commercial",
        description="FLUX.1 Krea dev, 12B parameters",
        distilled=False,
        default_steps=25,
        useful_max_steps=100,
        default_guidance=4.5,
        size_gb=34.0,
    ),
)

_QWEN = (
    ModelSpec(
        name="qwen-image",
        family="qwen",
        geometry="qwen-image",
        repo="Qwen/Qwen-Image-2512",
        licence="Apache-2.0",
        description="Qwen-Image 2512, 20B parameters",
        distilled=False,
        default_steps=30,
        useful_max_steps=100,
        default_guidance=4.0,
        negative_prompt=True,
        size_gb=58.0,
    ),
)

_TINY = ModelSpec(
    name=EMBEDDED,
    family="flux2_tiny",
    geometry=EMBEDDED,
    licence="Apache-2.0",
    description="The embedded model: coloured shapes and everyday things, by the FLUX.2 pipeline on any machine",
    distilled=True,
    default_steps=4,
    useful_max_steps=8,
    default_px=128,
    native_px=128,
    max_references=1,
    size_gb=0.02,
)

CATALOG: tuple[ModelSpec, ...] = (
    _TINY,
    *_WHOLE,
    *(_quantised(spec, bits) for spec in _WHOLE for bits in (3, 4, 6, 8)),
    *(row for spec in (*_Z_IMAGE, *_FLUX1, *_QWEN) for row in (spec, _quantised(spec, 4), _quantised(spec, 8))),
)
