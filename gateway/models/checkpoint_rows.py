"""Rows of checkpoints: their abilities as those of a catalogue model, their sizes from their own tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.catalog.spec import Family, ModelSpec
from engine.checkpoints.kinds import Checkpoint
from gateway.models.checkpoints import CheckpointFile
from gateway.models.weights import stored_bits

FAMILY_WORDS: Mapping[Family, str] = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "Stable Diffusion XL",
    "sdxl_refiner": "the refiner of Stable Diffusion XL",
}
TEXT_WIDTHS: Mapping[Family, tuple[int, ...]] = {
    "sd1": (768,),
    "sd2": (1024,),
    "sdxl": (768, 1280),
    "sdxl_refiner": (1280,),
}
"""Widths of the text encoders of released models."""
_UNETS: Mapping[Family, int] = {
    "sd1": 859_520_964,
    "sd2": 865_910_724,
    "sdxl": 2_567_463_684,
    "sdxl_refiner": 2_259_526_660,
}
"""Parameters of the UNets of released models."""
_WITHIN = 0.001
"""Difference of an inpainting model's parameters from them: its first layer is larger."""
_FEW_STEPS = re.compile(r"(?<![a-z])(?:turbo|lightning|hyper|lcm|dmd2?)(?![a-z])")
"""In names of models that were distilled to few steps."""
VAE_BYTES = 4
"""Bytes of a parameter of the VAE in memory: that of SDXL overflows float16."""


def checkpoint_row(one: CheckpointFile) -> ModelSpec:
    """The row of a checkpoint that can be used. Its name says whether it draws in few steps, as a default only."""
    kind = one.kind
    assert kind is not None
    in_few_steps = _FEW_STEPS.search(one.found.stem.lower()) is not None
    vae = 0 if kind.vae is None else VAE_BYTES * kind.vae.parameters
    weights = 2 * (kind.unet.parameters + kind.text_encoders.parameters) + vae
    bits = stored_bits(one.path) if one.found.is_folder else None
    return ModelSpec(
        name=one.name,
        family=kind.family,
        geometry=_geometry(kind),
        licence="as its author says",
        description=_description(kind),
        size_gb=round(one.found.size_bytes / 1e9, 2),
        weights_gb=weights / 1e9,
        stored_bits=bits,
        fixed_gb=(weights - 2 * (kind.unet.linear + kind.text_encoders.linear)) / 1e9,
        distilled=False,
        default_steps=4 if in_few_steps else 20,
        useful_max_steps=150,
        default_guidance=1.0 if in_few_steps else 7.0,
        default_px=_native_px(kind),
        step_px=8,
        negative_prompt=True,
        prediction=kind.prediction,
        zero_terminal_snr=kind.zero_terminal_snr,
        inpaints=kind.inpaints,
        needs_vae=kind.vae is None,
    )


def _geometry(kind: Checkpoint) -> str:
    """The family's name for a UNet of its released size; pruned ones have their own."""
    whole = _UNETS[kind.family]
    if abs(kind.unet.parameters - whole) <= _WITHIN * whole:
        return kind.family
    return f"{kind.family}-{kind.unet.parameters}"


def _native_px(kind: Checkpoint) -> int:
    if kind.native_px is not None:
        return kind.native_px
    if kind.family in ("sdxl", "sdxl_refiner"):
        return 1024
    return 768 if kind.family == "sd2" and kind.prediction == "v_prediction" else 512


def _description(kind: Checkpoint) -> str:
    words = FAMILY_WORDS[kind.family]
    traits = (
        ("for inpainting", kind.inpaints),
        ("predicts v", kind.prediction == "v_prediction"),
        ("zero terminal SNR", kind.zero_terminal_snr),
        ("without a VAE: it needs a VAE file", kind.vae is None),
    )
    return ", ".join((f"A checkpoint of {words}", *(trait for trait, is_so in traits if is_so)))
