"""What a VAE file is, by the names and shapes of its tensors: those of checkpoints, with or without their prefix, or
those of diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.checkpoints.kinds import HEADER_MOST_BYTES, READABLE, VAE, NotACheckpoint, Part, part_of
from engine.safetensors import Tensor, UnsafeFile, inspect

LATENT_CHANNELS = 4
_FIRST, _ENCODER = "decoder.conv_in.weight", "encoder.conv_in.weight"


def recognise_vae(file: Path) -> Part:
    """The size of a VAE that decodes Stable Diffusion's latents. Raises: NotACheckpoint, OSError."""
    try:
        return recognise_vae_tensors(inspect(file, most_header_bytes=HEADER_MOST_BYTES).tensors)
    except UnsafeFile as error:
        raise NotACheckpoint(error.message) from error


def recognise_vae_tensors(tensors: Mapping[str, Tensor]) -> Part:
    """As `recognise_vae`, by tensors. Raises: NotACheckpoint."""
    own = {name.removeprefix(VAE): tensor for name, tensor in tensors.items()}
    parts = {
        name: tensor for name, tensor in own.items() if name.startswith(("encoder.", "decoder.", "quant_", "post_"))
    }
    first = parts.get(_FIRST)
    if first is None:
        raise NotACheckpoint("It is no VAE of Stable Diffusion.")
    if len(first.shape) != 4 or first.shape[1] != LATENT_CHANNELS or _ENCODER not in parts:
        raise NotACheckpoint("It is a VAE of another family, or holds a decoder alone.")
    if (other := next((tensor.dtype for tensor in parts.values() if tensor.dtype not in READABLE), None)) is not None:
        raise NotACheckpoint(f"Its weights are of the type {other}, which is not read here.")
    return part_of(parts)
