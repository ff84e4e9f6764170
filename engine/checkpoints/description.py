"""Description of a checkpoint: its networks, their sizes, and where each of their parameters is stored.

Reads headers and configurations; no weights are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from engine.catalog.spec import Family
from engine.checkpoints.architecture import ClipArchitecture, UNetArchitecture, VaeArchitecture
from engine.checkpoints.folders import read_config, recognise_folder, weights_in
from engine.checkpoints.kinds import (
    HEADER_MOST_BYTES,
    READABLE,
    Checkpoint,
    NotACheckpoint,
    read_tensor,
    recognise_tensors,
)
from engine.checkpoints.refusals import UNET
from engine.checkpoints.sizes import Config, Shapes, clip_architecture, unet_architecture, vae_architecture
from engine.checkpoints.sources import Source, Sources
from engine.checkpoints.text_names import PROJECTION, clip_sources, open_clip_sources
from engine.checkpoints.unet_names import unet_sources
from engine.checkpoints.vae_names import PREFIX as VAE_PREFIX
from engine.checkpoints.vae_names import vae_sources
from engine.safetensors import Header, Tensor, UnsafeFile, inspect

A = TypeVar("A", ClipArchitecture, UNetArchitecture, VaeArchitecture)

SCALE_FACTORS: Mapping[Family, float] = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025, "sdxl_refiner": 0.13025}
"""Factor of a VAE's latents where no configuration states one."""
BITS = ("2", "3", "4", "5", "6", "8")
"""Bits to which MLX quantises."""
QUANTISED = "quantization_level"
"""Key of a file's metadata: the bits to which its linear layers are quantised. mflux has the same."""
_TEXT_PREFIXES = (
    ("cond_stage_model.transformer.", False),
    ("cond_stage_model.model.", True),
    ("conditioner.embedders.0.transformer.", False),
    ("conditioner.embedders.0.model.", True),
    ("conditioner.embedders.1.model.", True),
)
"""Prefixes of text encoders in single files, in their order, and whether the names below are OpenCLIP's."""
_PACKED = (".scales", ".biases")
"""Endings of the names of what belongs to a quantised weight."""


@dataclass(frozen=True, slots=True)
class Network(Generic[A]):
    """A network of a checkpoint."""

    architecture: A
    sources: Sources
    """Of its parameters, by their names in diffusers and transformers. There may be further ones that nothing reads."""
    files: tuple[Path, ...]
    bits: int | None = None
    """Bits to which its linear layers are stored; None: not quantised."""


@dataclass(frozen=True, slots=True)
class Description:
    """A checkpoint and its networks."""

    checkpoint: Checkpoint
    unet: Network[UNetArchitecture]
    text_encoders: Mapping[str, Network[ClipArchitecture]]
    """By the names of diffusers: `text_encoder`, `text_encoder_2`."""
    vae: Network[VaeArchitecture] | None
    """None: it has none, so that a VAE file is needed."""
    scale_factor: float
    """Latents of the UNet are latents of the VAE times this."""


def describe(path: Path, *, vae: Path | None = None) -> Description:
    """Describe a checkpoint: one `.safetensors` file, or a diffusers folder. `vae`: a file with another VAE.

    Raises: NotACheckpoint, OSError.
    """
    return _of_folder(path, vae) if path.is_dir() else _of_file(path, vae)


def describe_vae(file: Path) -> Network[VaeArchitecture]:
    """Describe the VAE in a file, be it a file of its own or part of a checkpoint. Raises: NotACheckpoint, OSError."""
    return _vae_in(file, _inspected(file).tensors)


def text_encoder_names(family: Family) -> tuple[str, ...]:
    """Names of a family's text encoders in diffusers."""
    match family:
        case "sdxl":
            return "text_encoder", "text_encoder_2"
        case "sdxl_refiner":
            return ("text_encoder_2",)
        case _:
            return ("text_encoder",)


def _of_file(file: Path, vae: Path | None) -> Description:
    header = _inspected(file)
    tensors = header.tensors
    checkpoint = recognise_tensors(tensors, header.metadata, lambda name: read_tensor(file, tensors[name]))
    unet = unet_sources(tensors, UNET)
    return Description(
        checkpoint,
        Network(unet_architecture(_shapes(unet, tensors)), unet, (file,)),
        _text_encoders(file, tensors, checkpoint.family),
        _vae_of_file(file, tensors) if vae is None else describe_vae(vae),
        SCALE_FACTORS[checkpoint.family],
    )


def _vae_of_file(file: Path, tensors: Mapping[str, Tensor]) -> Network[VaeArchitecture] | None:
    has_vae = any(name.startswith(VAE_PREFIX) for name in tensors)
    return _vae_in(file, tensors) if has_vae else None


def _vae_in(file: Path, tensors: Mapping[str, Tensor]) -> Network[VaeArchitecture]:
    sources = vae_sources(tensors)
    if not sources:
        raise NotACheckpoint("It holds no VAE.")
    return Network(vae_architecture(_shapes(sources, tensors)), sources, (file,))


def _text_encoders(file: Path, tensors: Mapping[str, Tensor], family: Family) -> dict[str, Network[ClipArchitecture]]:
    found: list[Network[ClipArchitecture]] = []
    for prefix, is_open_clip in _TEXT_PREFIXES:
        sources = (open_clip_sources if is_open_clip else clip_sources)(tensors, prefix)
        if not sources:
            continue
        if family == "sd2":
            sources = _without_last_layer(sources)
        architecture = clip_architecture(_shapes(sources, tensors), is_open_clip=is_open_clip)
        found.append(Network(architecture, sources, (file,)))
    names = text_encoder_names(family)
    if len(found) != len(names):
        raise NotACheckpoint("It has not the text encoders of its family; use the whole checkpoint.")
    return dict(zip(names, found, strict=True))


def _without_last_layer(sources: Mapping[str, Source]) -> dict[str, Source]:
    """The text encoder of SD 2 as its folders have it: the UNet reads the output of the last layer but one, and
    nothing reads the pooled output.
    """
    layers = {name: int(name.split(".")[3]) for name in sources if name.startswith("text_model.encoder.layers.")}
    last = max(layers.values(), default=0)
    return {name: source for name, source in sources.items() if layers.get(name) != last and name != PROJECTION}


def _of_folder(folder: Path, vae: Path | None) -> Description:
    checkpoint = recognise_folder(folder)
    return Description(
        checkpoint,
        _of_part(folder / "unet", lambda names: {name: Source(name) for name in names}, unet_architecture),
        {
            name: _of_part(folder / name, lambda names: clip_sources(names, ""), clip_architecture)
            for name in text_encoder_names(checkpoint.family)
        },
        _vae_of_folder(folder, checkpoint) if vae is None else describe_vae(vae),
        _scale_factor(folder, checkpoint),
    )


def _vae_of_folder(folder: Path, checkpoint: Checkpoint) -> Network[VaeArchitecture] | None:
    if checkpoint.vae is None:
        return None
    return _of_part(folder / "vae", vae_sources, vae_architecture)


def _of_part(
    folder: Path,
    name_sources: Callable[[Collection[str]], dict[str, Source]],
    sized: Callable[[Shapes, Config], A],
) -> Network[A]:
    """The network in a folder of a diffusers folder."""
    files = tuple(weights_in(folder))
    headers = [_inspected(file) for file in files]
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    bits = _stored_bits(headers)
    names = [name for name in tensors if not name.endswith(_PACKED)]
    sources = name_sources(names)
    shapes = _shapes(sources, tensors, bits)
    packed = {
        parameter.removesuffix("weight") + ending[1:]: Source(source.name.removesuffix("weight") + ending[1:])
        for parameter, source in sources.items()
        for ending in _PACKED
        if parameter.endswith(".weight") and source.name.removesuffix(".weight") + ending in tensors
    }
    return Network(sized(shapes, read_config(folder / "config.json")), sources | packed, files, bits)


def _stored_bits(headers: list[Header]) -> int | None:
    """Bits to which the files' linear layers are quantised. Raises: NotACheckpoint."""
    found = {header.metadata.get(QUANTISED, "") for header in headers}
    stated = found.pop() if len(found) == 1 else ""
    if not stated:
        return None
    if stated not in BITS:
        raise NotACheckpoint("Its weights are quantised in a way that is not known here.")
    return int(stated)


def _scale_factor(folder: Path, checkpoint: Checkpoint) -> float:
    """Raises: NotACheckpoint."""
    config = {} if checkpoint.vae is None else read_config(folder / "vae" / "config.json")
    if config.get("shift_factor") or config.get("latents_mean"):
        raise NotACheckpoint("Its VAE shifts the latents, which Stable Diffusion's does not.")
    factor = config.get("scaling_factor", SCALE_FACTORS[checkpoint.family])
    if not isinstance(factor, int | float) or not 0 < factor < 1000:
        raise NotACheckpoint("The configuration of its VAE has an unusable scaling_factor.")
    return float(factor)


def _shapes(sources: Sources, tensors: Mapping[str, Tensor], bits: int | None = None) -> Shapes:
    """Shapes of the parameters, those of quantised weights as before. Raises: NotACheckpoint."""
    found = {}
    for parameter, source in sources.items():
        tensor = tensors[source.name]
        is_packed = bits is not None and source.name.removesuffix(".weight") + ".scales" in tensors
        if not is_packed and tensor.dtype not in READABLE:
            raise NotACheckpoint(f"Its weights are of the type {tensor.dtype}, which is not read here.")
        shape = source.shape_in(tensor.shape)
        found[parameter] = (*shape[:-1], shape[-1] * 32 // bits) if is_packed and bits and shape else shape
    return found


def _inspected(file: Path) -> Header:
    """Raises: NotACheckpoint, OSError."""
    try:
        return inspect(file, most_header_bytes=HEADER_MOST_BYTES)
    except UnsafeFile as error:
        raise NotACheckpoint(error.message) from error
