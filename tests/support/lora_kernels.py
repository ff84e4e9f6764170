"""LoRA files for convolutions, with the kernel that each stands for worked out by hand: numpy alone, torch's layout.

A kernel is (outputs, inputs, height, width).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.lora_files import ALPHA, RANK, Array, Made, Tensors

Style = Callable[[Array, np.random.Generator], Made]
"""From a layer's weight: what a file has for it, and the weight that it becomes at scale 1."""


def _drawn(random: np.random.Generator, *shape: int) -> Array:
    return random.normal(size=shape) * 0.3


def _made(tensors: Tensors, delta: Array, **more: Any) -> Made:
    return Made(tensors, lambda base: base + delta.reshape(base.shape), **more)


def locon(*, flat: bool = False) -> Style:
    def make(base: Array, random: np.random.Generator) -> Made:
        outputs, inputs, *kernel = base.shape
        down, up = _drawn(random, RANK, inputs, *kernel), _drawn(random, outputs, RANK, *(1 for _ in kernel))
        delta = np.tensordot(up.reshape(outputs, RANK), down, 1) * ALPHA / RANK
        down = down.reshape(RANK, -1) if flat else down
        return _made({"lora_down.weight": down, "lora_up.weight": up, "alpha": np.array(ALPHA)}, delta)

    return make


def locon_with_core(base: Array, random: np.random.Generator) -> Made:
    outputs, inputs, *kernel = base.shape
    down, up = _drawn(random, RANK, inputs, 1, 1), _drawn(random, outputs, RANK, 1, 1)
    mid = _drawn(random, RANK, RANK, *kernel)
    delta = np.einsum("nmkl,in,mj->ijkl", mid, up[:, :, 0, 0], down[:, :, 0, 0]) * ALPHA / RANK
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": np.array(ALPHA)}
    return _made(tensors, delta)


def loha(base: Array, random: np.random.Generator) -> Made:
    outputs, columns = base.shape[0], base[0].size
    tensors: Tensors = {"alpha": np.array(ALPHA)}
    for half in (1, 2):
        tensors |= {f"hada_w{half}_a": _drawn(random, outputs, RANK), f"hada_w{half}_b": _drawn(random, RANK, columns)}
    halves = [tensors[f"hada_w{half}_a"] @ tensors[f"hada_w{half}_b"] for half in (1, 2)]
    return _made(tensors, halves[0] * halves[1] * ALPHA / RANK)


def loha_with_core(base: Array, random: np.random.Generator) -> Made:
    outputs, inputs, *kernel = base.shape
    tensors: Tensors = {"alpha": np.array(ALPHA)}
    halves = []
    for half in (1, 2):
        first, second = _drawn(random, RANK, outputs), _drawn(random, RANK, inputs)
        core = _drawn(random, RANK, RANK, *kernel)
        tensors |= {f"hada_w{half}_a": first, f"hada_w{half}_b": second, f"hada_t{half}": core}
        halves.append(np.einsum("ijkl,jr,ip->prkl", core, second, first))
    return _made(tensors, halves[0] * halves[1] * ALPHA / RANK)


def lokr(*, factored: bool = False, core: bool = False) -> Style:
    def make(base: Array, random: np.random.Generator) -> Made:
        outputs, inputs, *kernel = base.shape
        one, (rows, columns) = _drawn(random, 2, 2), (outputs // 2, inputs // 2)
        tensors: Tensors = {"lokr_w1": one, "alpha": np.array(ALPHA)}
        scale = ALPHA / RANK if factored or core else 1.0
        if core:
            first, second = _drawn(random, RANK, rows), _drawn(random, RANK, columns)
            between = _drawn(random, RANK, RANK, *kernel)
            tensors |= {"lokr_w2_a": first, "lokr_w2_b": second, "lokr_t2": between}
            other = np.einsum("ijkl,jr,ip->prkl", between, second, first)
        elif factored:
            first, second = _drawn(random, rows, RANK), _drawn(random, RANK, columns * int(np.prod(kernel)))
            tensors |= {"lokr_w2_a": first, "lokr_w2_b": second}
            other = (first @ second).reshape(rows, columns, *kernel)
        else:
            tensors["lokr_w2"] = other = _drawn(random, rows, columns, *kernel)
        return _made(tensors, np.kron(one.reshape(2, 2, *(1 for _ in kernel)), other) * scale)

    return make


def diff(base: Array, random: np.random.Generator) -> Made:
    delta, bias = _drawn(random, *base.shape), _drawn(random, base.shape[0])
    return _made({"diff": delta, "diff_b": bias}, delta, bias=bias)


def dora(of: Style, *, rows: bool = False) -> Style:
    """A DoRA as A1111 1.10.1 merges it: by the lengths of the columns, whatever the magnitudes are of."""

    def make(base: Array, random: np.random.Generator) -> Made:
        made = of(base, random)
        outputs, inputs, *kernel = base.shape
        shape = (outputs, 1) if rows else (1, inputs)
        magnitudes = (1 + np.abs(_drawn(random, *shape))).reshape(*shape, *(1 for _ in kernel))

        def weight(before: Array) -> Array:
            changed = made.weight(before)
            axes = (0, *range(2, changed.ndim))
            return changed * (magnitudes / np.sqrt((changed**2).sum(axis=axes, keepdims=True)))

        return Made({**made.tensors, "dora_scale": magnitudes}, weight, made.bias)

    return make


def peft_dora(base: Array, random: np.random.Generator) -> Made:
    """A DoRA of PEFT, whose magnitudes are of the rows."""
    made = locon()(base, random)
    outputs = base.shape[0]
    magnitudes = 1 + np.abs(_drawn(random, outputs))

    def weight(before: Array) -> Array:
        changed = made.weight(before)
        lengths = np.sqrt((changed.reshape(outputs, -1) ** 2).sum(axis=1))
        return changed * (magnitudes / lengths).reshape(-1, *(1 for _ in changed.shape[1:]))

    shape = (1, outputs, *(1 for _ in base.shape[2:])) if base.ndim > 2 else (outputs,)
    return Made({**made.tensors, "lora_magnitude_vector.default.weight": magnitudes.reshape(shape)}, weight)


def ia3(*, on_input: bool) -> Style:
    def make(base: Array, random: np.random.Generator) -> Made:
        size = base.shape[1] if on_input else base.shape[0]
        factors = _drawn(random, size)
        points = tuple(1 for _ in base.shape[2:])
        shape = (1, size, *points) if on_input else (size, 1, *points)
        stored = factors.reshape(1, size, *points) if points else factors
        tensors = {"weight": stored, "on_input": np.array(float(on_input))}
        return Made(tensors, lambda before: before * (1 + factors.reshape(shape)))

    return make


STYLES: dict[str, Style] = {
    "locon": locon(),
    "locon, flat": locon(flat=True),
    "locon with core": locon_with_core,
    "loha": loha,
    "loha with core": loha_with_core,
    "lokr": lokr(),
    "lokr, factored": lokr(factored=True),
    "lokr with core": lokr(core=True),
    "diff": diff,
    "dora of columns": dora(locon()),
    "dora of rows": dora(locon(), rows=True),
    "dora of a loha": dora(loha),
    "dora of a lokr": dora(lokr()),
    "peft dora": peft_dora,
    "ia3 of inputs": ia3(on_input=True),
    "ia3 of outputs": ia3(on_input=False),
}

GOLDEN_LAYERS = {"convolution": (12, 8, 3, 3), "point": (16, 12, 1, 1), "linear": (16, 24)}
"""Weights of the layers that A1111's own code has changed."""
GOLDEN_SCALE = 0.7


def golden_case(layer: str, style: str) -> tuple[Array, Made]:
    """A layer's weight, and what a file has for it; the same for the golden values and for their test."""
    base = np.random.default_rng(7).normal(size=GOLDEN_LAYERS[layer])
    return base, STYLES[style](base, np.random.default_rng(8))


def golden_cases() -> list[tuple[str, str]]:
    """Layers and styles that A1111 1.10.1 applies: it knows no magnitudes of PEFT, and no IA3 of a kernel's outputs."""
    found = []
    for layer, shape in GOLDEN_LAYERS.items():
        for style in STYLES:
            fits = shape[2:] == (3, 3) if "core" in style else True
            known = style != "peft dora" and (style != "ia3 of outputs" or len(shape) == 2)
            if fits and known:
                found.append((layer, style))
    return found
