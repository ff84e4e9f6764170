"""Files of textual inversions: what a file holds, from its header alone. No number of a tensor is read.

A textual inversion is a list of token embeddings that stand for its name, the stem of its file. Which models it fits is
told by the width of its vectors, as A1111 tells it.

Source: A1111 1.10.1 modules/textual_inversion/textual_inversion.py, extensions-builtin/Lora/networks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.safetensors import PICKLES, Tensor, inspect

EmbeddingFamily = Literal["sd1", "sd2", "sdxl", "sdxl_refiner"]

SUFFIX = ".safetensors"
MAX_VECTORS = 75
"""Tokens of a chunk; an embedding lies within one."""
MAX_HEADER_BYTES = 2**20
DTYPES = ("F16", "BF16", "F32")
FAMILIES: Mapping[tuple[int, ...], EmbeddingFamily] = {
    (768,): "sd1",
    (1024,): "sd2",
    (768, 1280): "sdxl",
    (1280,): "sdxl_refiner",
}
"""Families of released models, by the widths of their text encoders."""
CLIP_L, CLIP_G = "clip_l", "clip_g"
BUNDLE = "bundle_emb"
IMAGES = (".png", ".webp", ".jxl", ".avif")
_BUNDLED_NAME_PARTS = 3


class NotAnEmbedding(Exception):
    """The file is no textual inversion that can be read. `message` is a sentence fit for a client."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class EmbeddingHeader:
    """What a textual inversion consists of."""

    vectors: int
    """Tokens that it takes, 1 to 75."""
    tensors: tuple[tuple[str, int], ...]
    """Name and width of the tensor for each text encoder, in the order of the encoders. Shape (vectors, width)."""

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(width for _, width in self.tensors)

    @property
    def family(self) -> EmbeddingFamily | None:
        """Family of released models that it fits; None for one of other widths."""
        return FAMILIES.get(self.widths)

    def fits(self, widths: tuple[int, ...]) -> bool:
        """Whether it fits a model whose text encoders have these widths."""
        return self.widths == widths


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """A file and the textual inversion in it; a LoRA's file may hold several."""

    path: Path
    header: EmbeddingHeader


def read_embedding(file: Path) -> EmbeddingHeader:
    """Header of a textual inversion's file.

    Raises: NotAnEmbedding, engine.safetensors.UnsafeFile, OSError.
    """
    suffix = file.suffix.lower()
    if suffix in PICKLES:
        raise NotAnEmbedding(f"{file.name} is a pickle, which can run code; convert it to safetensors.")
    if suffix in IMAGES:
        raise NotAnEmbedding(f"{file.name} is an image; textual inversions are read from safetensors files only.")
    if suffix != SUFFIX:
        raise NotAnEmbedding(f"{file.name} is not a safetensors file.")
    return recognise_tensors(inspect(file, most_header_bytes=MAX_HEADER_BYTES).tensors, file.name)


def recognise_tensors(tensors: Mapping[str, Tensor], name: str) -> EmbeddingHeader:
    """The textual inversion that the tensors of the file `name` are. Raises: NotAnEmbedding."""
    if CLIP_L in tensors and CLIP_G in tensors:
        parts = [_part(tensors, key, name) for key in (CLIP_L, CLIP_G)]
    elif len(tensors) == 1:
        parts = [_part(tensors, key, name) for key in tensors]
    else:
        raise NotAnEmbedding(f"{name} is no textual inversion: it holds {len(tensors)} tensors.")
    counts = {vectors for vectors, _, _ in parts}
    if len(counts) != 1:
        raise NotAnEmbedding(f"{name} has different numbers of vectors for the two text encoders.")
    return EmbeddingHeader(counts.pop(), tuple((key, width) for _, key, width in parts))


def bundled_embeddings(tensors: Mapping[str, Tensor], name: str) -> dict[str, EmbeddingHeader]:
    """Textual inversions by name that a LoRA's file holds as tensors `bundle_emb.NAME.KEY`. Raises: NotAnEmbedding."""
    found: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        parts = full.split(".", _BUNDLED_NAME_PARTS - 1)
        if len(parts) == _BUNDLED_NAME_PARTS and parts[0] == BUNDLE and parts[1]:
            found.setdefault(parts[1], {})[full] = tensor
    return {bundled: _recognise_bundled(own, name) for bundled, own in found.items()}


def _recognise_bundled(tensors: Mapping[str, Tensor], name: str) -> EmbeddingHeader:
    keys = {full.split(".", _BUNDLED_NAME_PARTS - 1)[-1]: full for full in tensors}
    header = recognise_tensors({key: tensors[full] for key, full in keys.items()}, name)
    return EmbeddingHeader(header.vectors, tuple((keys[key], width) for key, width in header.tensors))


def _part(tensors: Mapping[str, Tensor], key: str, name: str) -> tuple[int, str, int]:
    """Vectors, key and width of one tensor; a tensor of one dimension is one vector."""
    tensor = tensors[key]
    if len(tensor.shape) not in (1, 2) or tensor.dtype not in DTYPES:
        raise NotAnEmbedding(f"{name} is no textual inversion: it holds no list of vectors.")
    vectors, width = tensor.shape if len(tensor.shape) == 2 else (1, *tensor.shape)
    if not 1 <= vectors <= MAX_VECTORS:
        raise NotAnEmbedding(f"{name} has {vectors} vectors; a prompt's chunk has room for {MAX_VECTORS}.")
    return vectors, key, width
