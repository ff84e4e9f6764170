"""LoRA files as trainers write them, with the change that they stand for worked out by hand, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Tensors = dict[str, Array]
RANK, ALPHA = 4, 6.0


@dataclass(frozen=True)
class Made:
    """Tensors by the end of their names, and the weight that a bare one becomes at scale 1."""

    tensors: Tensors
    weight: Callable[[Array], Array]
    bias: Array | float = 0.0
    metadata: Mapping[str, str] | None = None


Style = Callable[[int, int, np.random.Generator], Made]
"""From outputs and inputs of a layer."""


def _drawn(random: np.random.Generator, *shape: int) -> Array:
    return random.normal(size=shape) * 0.5


def _plus(delta: Array) -> Callable[[Array], Array]:
    return lambda base: base + delta


def lora(down: str, up: str, alpha: str | None = None, *, kernel: bool = False, mid: str | None = None) -> Style:
    """Low rank under these ends; a kernel of one point behind the matrices where `kernel`."""

    def make(outputs: int, inputs: int, random: np.random.Generator) -> Made:
        a, b = _drawn(random, RANK, inputs), _drawn(random, outputs, RANK)
        tensors = {down: a, up: b}
        scale = 1.0
        if alpha is not None:
            tensors[alpha], scale = np.array(ALPHA), ALPHA / RANK
        product = b @ a
        if mid is not None:
            tensors[mid] = _drawn(random, RANK, RANK)
            product = b @ tensors[mid] @ a
        if kernel:
            tensors = {
                name: value.reshape(*value.shape, 1, 1) if value.ndim == 2 else value for name, value in tensors.items()
            }
        return Made(tensors, _plus(scale * product))

    return make


def peft_with_metadata(prefix: str, *, rslora: bool = False) -> Style:
    """PEFT's names, with alpha in the header as diffusers writes it."""

    def make(outputs: int, inputs: int, random: np.random.Generator) -> Made:
        a, b = _drawn(random, RANK, inputs), _drawn(random, outputs, RANK)
        flag = "true" if rslora else "false"
        told = f'{{"{prefix}lora_alpha": {ALPHA}, "{prefix}r": {RANK}, "{prefix}use_rslora": {flag}}}'
        scale = ALPHA / (RANK**0.5 if rslora else RANK)
        tensors = {"lora_A.weight": a, "lora_B.weight": b}
        return Made(tensors, _plus(scale * b @ a), metadata={"lora_adapter_metadata": told})

    return make


def lora_with_bias(bias: str) -> Style:
    """With a bias of its own: PEFT's is scaled as the matrices are, ComfyUI's `diff_b` is not."""

    def make(outputs: int, inputs: int, random: np.random.Generator) -> Made:
        a, b, c = _drawn(random, RANK, inputs), _drawn(random, outputs, RANK), _drawn(random, outputs)
        scale = ALPHA / RANK
        tensors = {"lora_down.weight": a, "lora_up.weight": b, "alpha": np.array(ALPHA), bias: c}
        return Made(tensors, _plus(scale * b @ a), (1.0 if bias == "diff_b" else scale) * c)

    return make


def loha(*, core: bool = False) -> Style:
    def make(outputs: int, inputs: int, random: np.random.Generator) -> Made:
        tensors: Tensors = {"alpha": np.array(ALPHA)}
        halves = []
        for half in ("1", "2"):
            a, b = _drawn(random, outputs, RANK), _drawn(random, RANK, inputs)
            if core:
                t = _drawn(random, RANK, RANK)
                tensors |= {f"hada_t{half}": t.reshape(RANK, RANK, 1, 1), f"hada_w{half}_a": a.T, f"hada_w{half}_b": b}
                halves.append(np.einsum("ij,jr,ip->pr", t, b, a.T))
            else:
                tensors |= {f"hada_w{half}_a": a, f"hada_w{half}_b": b}
                halves.append(a @ b)
        return Made(tensors, _plus(ALPHA / RANK * halves[0] * halves[1]))

    return make


def _parted(size: int) -> int:
    return next(part for part in (4, 3, 2, 1) if size % part == 0)


def lokr(*, first: bool = False, second: bool = False, core: bool = False) -> Style:
    """`first` and `second`: that factor is a product of two of low rank; `core`: with a core between them."""

    def make(outputs: int, inputs: int, random: np.random.Generator) -> Made:
        shapes = (_parted(outputs), _parted(inputs)), (outputs // _parted(outputs), inputs // _parted(inputs))
        tensors: Tensors = {"alpha": np.array(ALPHA)}
        factors = []
        for number, (shape, low) in enumerate(zip(shapes, (first, second), strict=True), 1):
            name = f"lokr_w{number}"
            if not low:
                tensors[name] = _drawn(random, *shape)
                factors.append(tensors[name])
                continue
            a, b = _drawn(random, shape[0], RANK), _drawn(random, RANK, shape[1])
            if core and number == 2:
                t = _drawn(random, RANK, RANK)
                tensors |= {f"{name}_a": a.T, f"{name}_b": b, "lokr_t2": t.reshape(RANK, RANK, 1, 1)}
                factors.append(a @ t @ b)
            else:
                tensors |= {f"{name}_a": a, f"{name}_b": b}
                factors.append(a @ b)
        scale = ALPHA / RANK if first or second else 1.0  # LyCORIS leaves alpha out where both are whole
        return Made(tensors, _plus(scale * np.kron(factors[0], factors[1])))

    return make


def dora(of: Style, name: str, *, columns: bool = False, flat: bool = False) -> Style:
    """What `of` changes, its rows or columns brought to lengths of their own."""

    def make(outputs: int, inputs: int, random: np.random.Generator) -> Made:
        made = of(outputs, inputs, random)
        size = inputs if columns else outputs
        length = 1.0 + np.abs(_drawn(random, size))
        shape = (1, size) if columns else (size,) if flat else (size, 1)

        def weight(base: Array) -> Array:
            changed = made.weight(base)
            told = length.reshape((1, -1) if columns else (-1, 1))
            return changed * told / np.linalg.norm(changed, axis=0 if columns else 1, keepdims=True)

        return Made({**made.tensors, name: length.reshape(shape)}, weight, made.bias, made.metadata)

    return make


def diff(outputs: int, inputs: int, random: np.random.Generator) -> Made:
    delta, bias = _drawn(random, outputs, inputs), _drawn(random, outputs)
    return Made({"diff": delta, "diff_b": bias}, _plus(delta), bias)


def save(file: Path, layers: Mapping[str, Made], prefix: str = "", joint: str = ".") -> None:
    """All layers in one file, each under its name behind `prefix`."""
    import mlx.core as mx

    arrays, metadata = {}, {}
    for layer, made in layers.items():
        metadata |= made.metadata or {}
        for end, value in made.tensors.items():
            arrays[f"{prefix}{layer}{joint}{end}"] = mx.array(value.astype(np.float32))
    assert len(arrays) == sum(len(made.tensors) for made in layers.values())
    assert prod(value.size for value in arrays.values()) >= 0
    mx.save_safetensors(str(file), arrays, metadata or {"format": "pt"})
