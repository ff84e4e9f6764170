"""What a checkpoint in one file is: its family and abilities, by the names and shapes of its tensors.

Sources: AUTOMATIC1111 1.10.1 modules/sd_models_config.py; diffusers 0.42 loaders/single_file_utils.py; ComfyUI
comfy/supported_models.py, for the predictions of SD 2 and SDXL.
"""

from __future__ import annotations

import statistics
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.catalog.spec import Family
from engine.checkpoints.refusals import FIRST_LAYER, UNET, refusal_of
from engine.safetensors import Tensor, UnsafeFile, inspect, opened

Prediction = Literal["epsilon", "v_prediction"]
SmallTensor = Callable[[str], Sequence[float]]
"""From a tensor's name to its numbers."""

VAE = "first_stage_model."
HEADER_MOST_BYTES = 16 * 2**20
"""Longest header of a checkpoint: one of SDXL has 300 KB."""
TENSOR_MOST_BYTES = 64 * 1024
"""Largest tensor that is read to tell what a file is."""
READABLE = frozenset({"F16", "BF16", "F32", "F8_E4M3"})
"""Types of weights that the engine reads."""
GROUP = 64
"""Weights of a row that are quantised together; a layer whose rows are no multiple of it stays as it is."""
_ENCODERS = ("cond_stage_model.", "conditioner.")
_V_BIAS = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
_V_DEVIATION = 0.09
"""Standard deviation above which SD 2 predicts v. Source: ComfyUI comfy/supported_models.py, SD20."""
_STATED: Mapping[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
}
"""Values of the metadata `modelspec.prediction_type`. Source: kohya-ss/sd-scripts library/sai_model_spec.py."""
_OTHER_INPUTS: Mapping[int, str] = {
    5: "It follows depth maps: its UNet has 5 input channels, and 4 or 9 are drawn with.",
    7: "It enlarges images: its UNet has 7 input channels, and 4 or 9 are drawn with.",
    8: "It edits by instruction (pix2pix): its UNet has 8 input channels, and 4 or 9 are drawn with.",
}
_UNREAD = ("position_ids", "logit_scale")
"""Tensors of any type that nothing reads."""
_TOKENS, _POSITIONS = "token_embedding.weight", "position_embedding.weight"
_POINTWISE = (".proj_in.weight", ".proj_out.weight")
"""1x1 convolutions that are linear layers in the engine."""


class NotACheckpoint(Exception):
    """No checkpoint that can be drawn with. `reason` is a sentence fit for a client; it names no path."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Part:
    """A network of a checkpoint, or several. `size_bytes` is on disk; `linear` counts the parameters that can be
    quantised.
    """

    size_bytes: int = 0
    parameters: int = 0
    linear: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(self.size_bytes + other.size_bytes, self.parameters + other.parameters, self.linear + other.linear)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of Stable Diffusion, in one file or in a folder."""

    family: Family
    prediction: Prediction
    zero_terminal_snr: bool
    """Whether its last timestep is all noise."""
    inpaints: bool
    """Whether its UNet has nine input channels: latents, mask, masked image."""
    text_widths: tuple[int, ...]
    """Widths of the token embeddings of its text encoders."""
    unet: Part
    text_encoders: Part
    vae: Part | None
    """None: it has none, so that it needs a VAE file."""
    native_px: int | None = None
    """Side of the images that it was trained on, where its configuration says so."""


def recognise_file(file: Path) -> Checkpoint:
    """Recognise a checkpoint by the header of its file; of SD 2 one small tensor is read.

    Raises: NotACheckpoint, OSError.
    """
    try:
        header = inspect(file, most_header_bytes=HEADER_MOST_BYTES)
    except UnsafeFile as error:
        raise NotACheckpoint(error.message) from error
    return recognise_tensors(header.tensors, header.metadata, lambda name: read_tensor(file, header.tensors[name]))


def recognise_tensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], values: SmallTensor | None = None
) -> Checkpoint:
    """Recognise a checkpoint by its tensors. `values` reads one; without it SD 2 predicts what the metadata says.

    Raises: NotACheckpoint, OSError.
    """
    if (reason := refusal_of(tensors.keys())) is not None:
        raise NotACheckpoint(reason)
    inputs = _inputs(tensors[UNET + FIRST_LAYER])
    family = _family(tensors)
    read = {name: one.dtype for name, one in tensors.items() if name.startswith((UNET, VAE, *_ENCODERS))}
    if others := {dtype for name, dtype in read.items() if dtype not in READABLE and not name.endswith(_UNREAD)}:
        raise NotACheckpoint(f"Its weights are of the type {min(others)}, which is not read here.")
    encoders = [name for name in tensors if name.startswith(_ENCODERS)]
    vae = part_of({name: tensor for name, tensor in tensors.items() if name.startswith(VAE)})
    prediction = _prediction(family, tensors, metadata, values, inpaints=inputs == 9)
    return Checkpoint(
        family=family,
        prediction=prediction,
        zero_terminal_snr=prediction == "v_prediction" and "ztsnr" in tensors,
        inpaints=inputs == 9,
        text_widths=tuple(tensors[name].shape[-1] for name in sorted(encoders) if name.endswith(_TOKENS)),
        unet=part_of({name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}),
        text_encoders=part_of({name: tensors[name] for name in encoders}),
        vae=vae if vae.parameters else None,
    )


def _inputs(first_layer: Tensor) -> int:
    """Input channels of a UNet: 4, or 9 for inpainting. Raises: NotACheckpoint."""
    inputs = first_layer.shape[1] if len(first_layer.shape) == 4 else 0
    return checked_inputs(inputs)


def checked_inputs(inputs: int) -> int:
    """The number of input channels, if it is drawn with. Raises: NotACheckpoint."""
    if inputs in (4, 9):
        return inputs
    raise NotACheckpoint(_OTHER_INPUTS.get(inputs, "Its UNet has a number of input channels that is not known here."))


def _family(tensors: Mapping[str, Tensor]) -> Family:
    """By the names of the text encoders. Raises: NotACheckpoint where they are not inside."""

    def holds(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    has_sizes = f"{UNET}label_emb.0.0.weight" in tensors
    if holds("conditioner.embedders.1.model.") and holds("conditioner.embedders.0.transformer."):
        return "sdxl"
    if holds("conditioner.embedders.0.model."):
        return "sdxl_refiner" if has_sizes else "sd2"
    if has_sizes:
        raise NotACheckpoint("It holds SDXL without its text encoders; use the whole checkpoint.")
    if holds("cond_stage_model.model."):
        return "sd2"
    if holds("cond_stage_model.transformer.") or holds("conditioner.embedders.0.transformer."):
        return "sd1"
    raise NotACheckpoint("It holds a UNet without text encoders; use the whole checkpoint.")


def _prediction(
    family: Family,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    values: SmallTensor | None,
    *,
    inpaints: bool,
) -> Prediction:
    if "v_pred" in tensors:
        return "v_prediction"
    if (stated := _STATED.get(metadata.get("modelspec.prediction_type", "").strip().lower())) is not None:
        return stated
    if family == "sd2" and not inpaints and values is not None and _V_BIAS in tensors:
        return "v_prediction" if statistics.pstdev(values(_V_BIAS)) > _V_DEVIATION else "epsilon"
    return "epsilon"


def part_of(tensors: Mapping[str, Tensor]) -> Part:
    """Size of a network."""
    return Part(
        size_bytes=sum(tensor.end - tensor.begin for tensor in tensors.values()),
        parameters=sum(tensor.elements for tensor in tensors.values()),
        linear=sum(tensor.elements for name, tensor in tensors.items() if _is_linear(name, tensor.shape)),
    )


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    is_pointwise = len(shape) == 4 and shape[2:] == (1, 1) and name.endswith(_POINTWISE)
    is_linear = len(shape) == 2 and not name.endswith((_TOKENS, _POSITIONS, "positional_embedding"))
    return (is_linear or is_pointwise) and shape[1] % GROUP == 0


def read_tensor(file: Path, tensor: Tensor) -> list[float]:
    """The numbers of a small tensor. Raises: NotACheckpoint where it is too large or of another type; OSError."""
    size = tensor.end - tensor.begin
    if size > TENSOR_MOST_BYTES:
        raise NotACheckpoint("A tensor that tells what it predicts has another size than in Stable Diffusion.")
    with opened(file) as stream:
        header = int.from_bytes(stream.read(8), "little")
        stream.seek(8 + header + tensor.begin)
        data = stream.read(size)
    if len(data) != size:
        raise NotACheckpoint("It is incomplete.")
    match tensor.dtype:
        case "F32":
            return list(struct.unpack(f"<{size // 4}f", data))
        case "F16":
            return list(struct.unpack(f"<{size // 2}e", data))
        case "BF16":
            halves = struct.unpack(f"<{size // 2}H", data)
            return list(
                struct.unpack(f"<{size // 2}f", struct.pack(f"<{size // 2}I", *(half << 16 for half in halves)))
            )
        case _:
            raise NotACheckpoint(f"Its weights are of the type {tensor.dtype}, which does not say what it predicts.")
