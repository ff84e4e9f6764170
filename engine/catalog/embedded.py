"""The embedded model, which ships with the gateway."""

from __future__ import annotations

from pathlib import Path

from engine.catalog.spec import ModelSpec
from engine.embedded.words import ICONS, SHAPES

EMBEDDED = "flux2-tiny"
EMBEDDED_PATH = Path(__file__).parent.parent / "embedded" / EMBEDDED

ROWS = (
    ModelSpec(
        name=EMBEDDED,
        family="flux2_tiny",
        geometry=EMBEDDED,
        licence="Apache-2.0",
        description="The embedded model: coloured shapes and everyday things, by the FLUX.2 pipeline on any machine",
        size_gb=0.02,
        distilled=True,
        default_steps=4,
        useful_max_steps=8,
        guidance_range=(1.0, 1.0),
        max_sequence=512,
        default_px=128,
        native_px=128,
        max_references=2,
        draws=(*SHAPES, *ICONS),
    ),
)
