"""Deltas from a LoRA file's tensors: the arithmetic of kohya, LyCORIS and PEFT.

Source: kohya-ss sd-scripts networks/lora.py (alpha / rank); LyCORIS loha.py, lokr.py, ia3.py and its
`apply_weight_decompose`; PEFT tuners/lora/dora.py. The whole change of a DoRA is scaled, as in ComfyUI and A1111:
W + scale * (W' - W).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from math import prod
from typing import Any

import mlx.core as mx

from engine.lora_layouts import Change
from engine.lora_layouts.peft_alphas import PeftAlphas
from engine.lora_layouts.reading import INPAINTING_INPUTS, short
from engine.pipelines.common.lora_layers import (
    AdaptedLayer,
    Delta,
    Dense,
    FirstInputs,
    Hadamard,
    Kronecker,
    LowRank,
    LowRankKernel,
    Window,
    bare_layer,
    module_of,
    weights,
    window_of,
)

Tensors = Mapping[str, mx.array]
Factors = tuple[mx.array | None, mx.array | None]
"""Factors of a layer's rows and columns."""


class Deltas:
    """Deltas of one file. `metadata` is from its header: PEFT stores alphas there.

    `column_lengths`: a `dora_scale` multiplies a weight whose columns have been brought to the length 1, whatever its
    shape, as A1111 1.10.1 does (extensions-builtin/Lora/network.py `apply_weight_decompose`). Otherwise rows or
    columns, by its shape, as in ComfyUI.

    Raises: ValueError for invalid metadata.
    """

    def __init__(self, tensors: Tensors, metadata: Mapping[str, str], *, column_lengths: bool = False) -> None:
        mx.eval([array for array in tensors.values() if array.size == 1])  # alphas, all at once
        self._tensors = tensors
        self._column_lengths = column_lengths
        self._alphas = PeftAlphas(metadata)

    def adapt(self, change: Change, layers: list[Any], scale: float) -> list[Any]:
        """Replacements for `layers`, which are the change's modules. Norms are changed in place.

        Raises: ValueError, TypeError for what cannot be applied exactly.
        """
        parts = {part: self._tensors[name] for part, name in change.parts.items()}
        if (
            whole := next((name for part, name in change.parts.items() if _is_whole(part, parts[part])), None)
        ) is not None:
            raise ValueError(f"holds whole numbers in {short(whole)}")
        if "weight" in layers[0] and layers[0].weight.ndim == 1:
            return [_norm(layers[0], parts, scale)]
        index = _indices(layers, change.swapped)
        bias = parts["diff_b"].astype(mx.float32) if "diff_b" in parts else None
        window, delta = window_of(layers[0]), None
        factors: Factors = None, None
        if change.method == "ia3":
            factors = _ia3(parts, layers)
        elif change.method != "plain":
            delta, factor = self._delta(change, parts, window)
            if "up_bias" in parts:
                bias = factor * parts["up_bias"].astype(mx.float32) + (0 if bias is None else bias)
        elif "diff" in parts:
            matrix = _matrix(parts["diff"])
            delta = Dense(matrix if window is None else window.kernel_of(matrix), window)
        if delta is not None:
            delta = _padded(delta, layers[0])
            if parts.keys() & {"dora_scale", "magnitude"}:
                factors = self._decomposed(parts, delta, layers, change.swapped)
        rows, columns = factors
        found = []
        for layer, own in zip(layers, index, strict=True):
            more = {
                "rows": _rows_of(rows, own),
                "columns": columns,
                "bias": _rows_of(bias, own),
            }
            found.append(AdaptedLayer(layer, scale, delta if own is None or delta is None else delta.rows(own), **more))
        return found

    def _delta(self, change: Change, parts: Tensors, window: Window | None) -> tuple[Delta, float]:
        """Delta of a change, and the factor by which it was scaled."""
        flat = {part: _matrix(array) for part, array in parts.items() if array.ndim > 1}
        match change.method:
            case "lora":
                up, down = flat["up"], flat["down"]
                factor = self._alpha(change, parts, down.shape[0])
                if "mid" in parts:
                    down = _with_core(parts["mid"], down)
                scaled = up.T if factor == 1 else up.T * factor
                if window is None:
                    return LowRank(down.T, scaled), factor
                return LowRankKernel(window.kernel_of(down), scaled, window), factor
            case "loha":
                factor = self._alpha(change, parts, flat["hada_w1_b"].shape[0])
                first, second = (_pair(flat, parts, f"hada_w{half}", f"hada_t{half}") for half in (1, 2))
                return Hadamard(first, second, factor, window), factor
            case _:
                low = [flat[f"{part}_b"].shape[0] for part in ("lokr_w2", "lokr_w1") if part not in flat]
                # Where both factors are whole there is no rank, and LyCORIS ignores alpha.
                factor = self._alpha(change, parts, low[0]) if low else 1.0
                scaled, *rest = _factors(flat, parts, "lokr_w1")
                return Kronecker((scaled * factor, *rest), _factors(flat, parts, "lokr_w2"), window), factor

    def _decomposed(self, parts: Tensors, delta: Delta, layers: list[Any], swapped: bool) -> Factors:
        """DoRA factors of the changed weight's rows, in the file's order, and columns.

        The base weight is made dense for this, quantised or not, and freed afterwards. Raises: TypeError.
        """
        before = mx.concatenate([weights(layer) for layer in layers])
        if swapped:
            (index,) = _indices(layers, swapped)
            before = before[index]
        changed = before + delta.dense()
        found = self._magnitudes(parts, changed)
        mx.eval([one for one in found if one is not None])
        return found

    def _magnitudes(self, parts: Tensors, changed: mx.array) -> Factors:
        points = tuple(range(1, changed.ndim - 1))
        if "magnitude" in parts:
            return _flat(parts["magnitude"]) / _lengths(changed, (*points, changed.ndim - 1)), None
        scale = parts["dora_scale"]
        is_of_rows = scale.shape[0] == changed.shape[0]
        if is_of_rows and not self._column_lengths:
            return _flat(scale) / _lengths(changed, (*points, changed.ndim - 1)), None
        lengths = _lengths(changed, (0, *points))
        return (_flat(scale), 1 / lengths) if is_of_rows else (None, _flat(scale) / lengths)

    def _alpha(self, change: Change, parts: Tensors, rank: int) -> float:
        """Alpha divided by rank; 1 where the file gives no alpha."""
        if "alpha" in parts:
            return float(parts["alpha"].astype(mx.float32).item()) / rank  # type: ignore[arg-type]
        alpha = self._alphas.alpha(change.parts["down"], rank) if change.method == "lora" else None
        return 1.0 if alpha is None else alpha / rank


def _is_whole(part: str, array: mx.array) -> bool:
    return part not in ("alpha", "on_input") and not mx.issubdtype(array.dtype, mx.floating)


def _matrix(array: mx.array) -> mx.array:
    """Rows, and columns for each input and point of a kernel."""
    return array.reshape(array.shape[0], prod(array.shape[1:]))


def _flat(array: mx.array) -> mx.array:
    return array.astype(mx.float32).reshape(-1)


def _lengths(weight: mx.array, axes: tuple[int, ...]) -> mx.array:
    return mx.sqrt(mx.sum(weight * weight, axis=axes))


def _with_core(core: mx.array, factor: mx.array) -> mx.array:
    """Product (before, inputs * points), in float32, of a core (before, after, height, width) and a factor
    (after, inputs).
    """
    cells = core.astype(mx.float32).reshape(core.shape[0], core.shape[1], -1)
    product = mx.matmul(factor.astype(mx.float32).T, cells)
    return product.reshape(core.shape[0], -1)


def _pair(flat: Tensors, parts: Tensors, half: str, core: str) -> tuple[mx.array, mx.array]:
    """Factors (outputs, rank) and (rank, inputs * points) of one half of a Hadamard product, a core multiplied in."""
    first, second = flat[f"{half}_a"], flat[f"{half}_b"]
    return (first.T, _with_core(parts[core], second)) if core in parts else (first, second)


def _factors(flat: Tensors, parts: Tensors, factor: str) -> tuple[mx.array, ...]:
    """One Kronecker factor in float32: whole, or as two."""
    if factor in flat:
        return (flat[factor].astype(mx.float32),)
    first, second = _pair(flat, parts, factor, "lokr_t2" if factor == "lokr_w2" else "")
    return first.astype(mx.float32), second.astype(mx.float32)


def _ia3(parts: Tensors, layers: list[Any]) -> Factors:
    """Factors of an IA3. Raises: ValueError where they are for inputs and there are other inputs, or for outputs."""
    factors = 1 + _flat(parts["ia3"])
    is_of_inputs = bool(parts["on_input"].item())
    module = module_of(bare_layer(layers[0]))
    size = sum(map(_outputs, layers)) if not is_of_inputs else None if module is None else module.inputs
    if factors.size != size:
        raise ValueError("has factors of another size")
    return (None, factors) if is_of_inputs else (factors, None)


def _padded(delta: Delta, layer: Any) -> Delta:
    """The delta, with zeros for the further inputs of an inpainting UNet's first layer."""
    width = bare_layer(layer).weight.shape[-1]
    if window_of(layer) is None or width != INPAINTING_INPUTS:
        return delta
    inputs = delta.dense().shape[-1]
    return delta if inputs == width else FirstInputs(delta, inputs, width)


def _indices(layers: list[Any], swapped: bool) -> list[mx.array | None]:
    """Rows of the file's matrix for each layer; None for all of them, in order."""
    sizes = [_outputs(layer) for layer in layers]
    if swapped:
        (size,) = sizes
        return [mx.concatenate([mx.arange(size // 2, size), mx.arange(size // 2)])]
    if len(sizes) == 1:
        return [None]
    starts = reduce(lambda found, size: [*found, found[-1] + size], sizes, [0])
    return [mx.arange(start, start + size) for start, size in zip(starts, sizes, strict=False)]


def _outputs(layer: Any) -> int:
    return int(layer.weight.shape[0])


def _rows_of(values: mx.array | None, index: mx.array | None) -> mx.array | None:
    return values if values is None or index is None else values[index]


def _norm(layer: Any, parts: Tensors, scale: float) -> Any:
    """The norm, with its weight and bias changed in place."""
    for part, attribute in (("diff", "weight"), ("diff_b", "bias")):
        if part in parts:
            base, delta = layer[attribute], parts[part].reshape(-1)
            changed = base.astype(mx.float32) + scale * delta.astype(mx.float32)
            layer[attribute] = changed.astype(base.dtype)
    return layer
