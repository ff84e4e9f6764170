"""Loading of a Stable Diffusion checkpoint into networks, layer by layer, and saving of what was loaded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from engine.catalog.spec import Family
from engine.checkpoints.architecture import Architecture
from engine.checkpoints.description import Network, describe, describe_vae, text_encoder_names
from engine.checkpoints.kinds import GROUP, NotACheckpoint, Prediction
from engine.checkpoints.saved_folder import SavedFolder
from engine.checkpoints.sources import missing_layer, unknown_layer
from engine.pipelines.common.loading import evaluate_parameters
from engine.pipelines.stable_diffusion.arrays import arrays_of
from engine.pipelines.stable_diffusion.networks.clip import ClipText
from engine.pipelines.stable_diffusion.networks.unet import UNet
from engine.pipelines.stable_diffusion.networks.vae import Vae

M = TypeVar("M", UNet, ClipText, Vae)


@dataclass(frozen=True)
class Parts:
    """The networks of a checkpoint, in memory."""

    family: Family
    unet: UNet
    text_encoders: tuple[ClipText, ...]
    """In the order of their outputs in the UNet's context."""
    own_vae: Vae | None
    """None: the checkpoint has none."""
    prediction: Prediction
    zero_terminal_snr: bool
    scale_factor: float
    """Latents of the UNet are latents of the VAE times this."""
    bits: int | None
    """Bits to which the linear layers of UNet and text encoders are quantised."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by their names in diffusers: `unet`, `text_encoder`, `text_encoder_2`, `vae`."""
        encoders = zip(text_encoder_names(self.family), self.text_encoders, strict=True)
        vae = {"vae": self.own_vae} if self.own_vae is not None else {}
        return {"unet": self.unet, **dict(encoders), **vae}

    @property
    def vae(self) -> Vae:
        """Raises: NotACheckpoint where there is none."""
        if self.own_vae is None:
            raise NotACheckpoint("It has no VAE; choose a VAE file by sd_vae.")
        return self.own_vae

    @property
    def architecture(self) -> Architecture:
        encoders = tuple(encoder.architecture for encoder in self.text_encoders)
        vae = None if self.own_vae is None else self.own_vae.architecture
        return Architecture(self.unet.architecture, encoders, vae)

    def save(self, folder: Path) -> None:
        """Write a diffusers folder that `load_parts` reads again: as whole or as quantised as the networks are now.

        Raises: OSError.
        """
        saved = SavedFolder(folder, self.family, self.architecture)
        saved.write_configs(self.prediction, self.scale_factor, zero_terminal_snr=self.zero_terminal_snr)
        linear_projection = self.architecture.unet.linear_projection
        for name, network in self.networks.items():
            parameters: list[tuple[str, mx.array]] = tree_flatten(network.parameters())
            arrays = {path: _stored(path, array, linear_projection) for path, array in parameters}
            metadata = saved.metadata(None if name == "vae" else self.bits)
            mx.save_safetensors(str(saved.weights(name)), arrays, metadata)


def load_parts(path: Path, *, quantize: int | None = None, vae: Path | None = None) -> Parts:
    """Load a checkpoint: one `.safetensors` file, or a diffusers folder.

    `quantize`: bits to which the linear layers of UNet and text encoders are quantised, those whose inputs divide into
    groups; weights that are stored quantised stay as they are. `vae`: a file with another VAE; a checkpoint without one
    loads without, too. The VAE is float32; all else is float16 on a GPU, and float32 on a CPU. The peak of memory is
    that of the parts and of one layer.

    Raises: NotACheckpoint, OSError.
    """
    description = describe(path, vae=vae)
    dtype = compute_dtype()
    unet = _loaded(UNet(description.unet.architecture, dtype), description.unet, "UNet", dtype, quantize)
    encoders = tuple(
        _loaded(ClipText(network.architecture, dtype), network, "text encoder", dtype, quantize)
        for network in description.text_encoders.values()
    )
    return Parts(
        family=description.checkpoint.family,
        unet=unet,
        text_encoders=encoders,
        own_vae=None if description.vae is None else _loaded_vae(description.vae),
        prediction=description.checkpoint.prediction,
        zero_terminal_snr=description.checkpoint.zero_terminal_snr,
        scale_factor=description.scale_factor,
        bits=description.unet.bits or quantize,
    )


def load_vae(file: Path) -> Vae:
    """Load the VAE of a file, be it a file of its own or a checkpoint, in float32. Raises: NotACheckpoint, OSError."""
    return _loaded_vae(describe_vae(file))


def compute_dtype() -> mx.Dtype:
    """Precision of UNet and text encoders: bfloat16 is visibly off, and a CPU has no fast float16."""
    return mx.float32 if mx.default_device().type == mx.DeviceType.cpu else mx.float16


def _loaded_vae(network: Network[Any]) -> Vae:
    return _loaded(Vae(network.architecture, mx.float32), network, "VAE", mx.float32, None)


def _loaded(module: M, network: Network[Any], name: str, dtype: mx.Dtype, quantize: int | None) -> M:
    """The module with the network's weights, in memory. Raises: NotACheckpoint."""
    bits = network.bits
    if bits is not None:
        _quantise(module, bits, {path for path in network.sources if path.endswith(".scales")})
    module.load_weights(_weights(module, network, name, dtype))
    if bits is None and quantize is not None:
        _quantise(module, quantize)
    evaluate_parameters(module)
    return module


def _quantise(module: nn.Module, bits: int, scales: Collection[str] | None = None) -> None:
    """Quantise the linear layers: those that have scales, or all that can be. 1x1 convolutions of residual blocks stay
    as they are: they are small, and every pixel passes through them.
    """

    def is_quantised(path: str, layer: nn.Module) -> bool:
        if not isinstance(layer, nn.Linear):
            return False
        if scales is not None:
            return f"{path}.scales" in scales
        return layer.weight.shape[-1] % GROUP == 0 and not path.endswith("conv_shortcut")

    nn.quantize(module, group_size=GROUP, bits=bits, class_predicate=is_quantised)


def _weights(module: nn.Module, network: Network[Any], name: str, dtype: mx.Dtype) -> list[tuple[str, mx.array]]:
    """Every parameter of the module, by its path, not read yet. Raises: NotACheckpoint."""
    arrays = arrays_of(network.files, {source.name for source in network.sources.values()})
    parameters: list[tuple[str, mx.array]] = tree_flatten(module.parameters())
    unread = network.sources.keys() - {path for path, _ in parameters}
    if unread:
        raise unknown_layer(name, min(unread))
    weights = []
    for path, initial in parameters:
        source = network.sources.get(path)
        if source is None:
            raise missing_layer(name, path)
        stored = _in_layout(source.taken_from(arrays[source.name]), initial)
        if stored is None:
            raise NotACheckpoint(f"Its {name} has a size that Stable Diffusion has not: {path}.")
        weights.append((path, _cast(stored, initial, dtype)))
    return weights


def _in_layout(stored: mx.array, wanted: mx.array) -> mx.array | None:
    """The stored array in the layout of the parameter: kernels with their channels last, 1x1 kernels without their
    sides. None where it does not fit.
    """
    if stored.ndim == 4 and wanted.ndim == 2 and stored.shape[2:] == (1, 1):
        stored = stored.reshape(stored.shape[:2])
    elif stored.ndim == 4 and wanted.ndim == 4:
        stored = stored.transpose(0, 2, 3, 1)
    return stored if stored.shape == wanted.shape else None


def _cast(stored: mx.array, wanted: mx.array, dtype: mx.Dtype) -> mx.array:
    if wanted.dtype == mx.uint32:  # quantised
        return stored
    if stored.dtype == mx.uint8:  # F8_E4M3, which MLX reads as its bits
        return mx.from_fp8(stored, dtype)
    return stored.astype(dtype)


def _stored(path: str, array: mx.array, linear_projection: bool) -> mx.array:
    """A parameter in the layout of diffusers."""
    if array.ndim == 4:
        return array.transpose(0, 3, 1, 2)
    layer, _, kind = path.rpartition(".")
    is_kernel = layer.endswith(("conv_shortcut", "quant_conv")) or (
        not linear_projection and layer.endswith(("proj_in", "proj_out"))
    )
    return array[:, :, None, None] if is_kernel and kind == "weight" and array.dtype != mx.uint32 else array
