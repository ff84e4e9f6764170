"""Deltas from a LoRA file's tensors: the arithmetic of kohya, LyCORIS and PEFT.

Source: kohya-ss sd-scripts networks/lora.py (alpha / rank); LyCORIS loha.py, lokr.py and its `apply_weight_decompose`;
PEFT tuners/lora/dora.py. The whole change of a DoRA is scaled, as in ComfyUI: W + scale * (W' - W).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import mlx.core as mx
from mflux.models.common.lora.mapping.peft_lora_metadata import PeftLoRAMetadata

from engine.lora_layouts import Change
from engine.lora_layouts.reading import short
from engine.pipelines.common.lora_layers import AdaptedLayer, Delta, Dense, Hadamard, Kronecker, LowRank, weights

Tensors = Mapping[str, mx.array]


class Deltas:
    """Deltas of one file. `metadata` is from its header: PEFT stores alphas there. Raises: ValueError for
    invalid ones.
    """

    def __init__(self, tensors: Tensors, metadata: Mapping[str, str]) -> None:
        self._tensors = tensors
        try:
            self._configs = PeftLoRAMetadata.configs(dict(metadata))
        except (TypeError, RecursionError) as error:
            raise ValueError("metadata") from error

    def adapt(self, change: Change, layers: list[Any], scale: float) -> list[Any]:
        """Replacements for `layers`, which are the change's modules. Norms are changed in place.

        Raises: ValueError, TypeError for what cannot be applied exactly.
        """
        parts = {part: self._tensors[name] for part, name in change.parts.items()}
        if (
            whole := next((name for part, name in change.parts.items() if _is_whole(part, parts[part])), None)
        ) is not None:
            raise ValueError(f"holds whole numbers in {short(whole)}")
        index = _indices(layers, change.swapped)
        bias = parts["diff_b"].astype(mx.float32) if "diff_b" in parts else None
        delta: Delta | None = None
        if change.method != "plain":
            delta, factor = self._delta(change, parts)
            if "up_bias" in parts:
                bias = factor * parts["up_bias"].astype(mx.float32) + (0 if bias is None else bias)
        elif "diff" in parts:
            if "weight" in layers[0] and layers[0].weight.ndim == 1:
                return [_norm(layers[0], parts, scale)]
            diff = parts["diff"]
            delta = Dense(diff.reshape(diff.shape[:2]))
        elif "weight" in layers[0] and layers[0].weight.ndim == 1:
            return [_norm(layers[0], parts, scale)]
        rows, columns = (None, None) if delta is None else _dora_scale(parts, delta, layers, change.swapped)
        found = []
        for layer, own in zip(layers, index, strict=True):
            more = {
                "rows": _rows_of(rows, own),
                "columns": columns,
                "bias": _rows_of(bias, own),
            }
            found.append(AdaptedLayer(layer, scale, delta if own is None or delta is None else delta.rows(own), **more))
        return found

    def _delta(self, change: Change, parts: Tensors) -> tuple[Delta, float]:
        """Delta of a change, and the factor by which it was scaled."""
        flat = {part: array.reshape(array.shape[:2]) for part, array in parts.items() if array.ndim > 1}
        match change.method:
            case "lora":
                down, up = flat["down"], flat["up"]
                factor = self._alpha(change, parts, down.shape[0])
                if "mid" in flat:
                    up = mx.matmul(up.astype(mx.float32), flat["mid"].astype(mx.float32))
                return LowRank(down.T, up.T if factor == 1 else up.T * factor), factor
            case "loha":
                factor = self._alpha(change, parts, flat["hada_w1_b"].shape[0])
                return Hadamard(_pair(flat, "hada_w1", "hada_t1"), _pair(flat, "hada_w2", "hada_t2"), factor), factor
            case _:
                low = [flat[f"{one}_b"].shape[0] for one in ("lokr_w2", "lokr_w1") if one not in flat]
                # Where both factors are whole there is no rank, and LyCORIS ignores alpha.
                factor = self._alpha(change, parts, low[0]) if low else 1.0
                return Kronecker(_factor(flat, "lokr_w1"), _factor(flat, "lokr_w2"), factor), factor

    def _alpha(self, change: Change, parts: Tensors, rank: int) -> float:
        """Alpha divided by rank; 1 where the file gives no alpha."""
        if "alpha" in parts:
            return float(parts["alpha"].astype(mx.float32).item()) / rank  # type: ignore[arg-type]
        if not self._configs or change.method != "lora":
            return 1.0
        try:
            scale_of_file = PeftLoRAMetadata.alpha(change.parts["down"], self._configs, rank)
        except (TypeError, ArithmeticError, AttributeError) as error:
            raise ValueError("has alphas in its metadata that are no numbers") from error
        return 1.0 if scale_of_file is None else scale_of_file / rank


def _is_whole(part: str, array: mx.array) -> bool:
    return part != "alpha" and not mx.issubdtype(array.dtype, mx.floating)


def _pair(flat: Tensors, half: str, core: str) -> tuple[mx.array, mx.array]:
    """Factors (outputs, rank) and (rank, inputs) of one half of a Hadamard product, a core multiplied in."""
    first, second = flat[f"{half}_a"], flat[f"{half}_b"]
    return (mx.matmul(first.T, flat[core]), second) if core in flat else (first, second)


def _factor(flat: Tensors, factor: str) -> mx.array:
    """One Kronecker factor, in float32."""
    if factor in flat:
        return flat[factor].astype(mx.float32)
    first, second = flat[f"{factor}_a"].astype(mx.float32), flat[f"{factor}_b"].astype(mx.float32)
    if factor == "lokr_w2" and "lokr_t2" in flat:
        first = mx.matmul(first.T, flat["lokr_t2"].astype(mx.float32))
    return mx.matmul(first, second)


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


def _dora_scale(
    parts: Tensors, delta: Delta, layers: list[Any], swapped: bool
) -> tuple[mx.array | None, mx.array | None]:
    """DoRA factors for the rows, in the file's order, or for the columns of the changed weight.

    The base weight is made dense for this, quantised or not, and freed afterwards. Raises: TypeError.
    """
    if (scale_of_file := parts.get("dora_scale")) is None:
        return None, None
    before = mx.concatenate([weights(layer) for layer in layers])
    if swapped:
        (index,) = _indices(layers, swapped)
        before = before[index]
    changed = before + delta.dense()
    magnitude = scale_of_file.astype(mx.float32).reshape(-1)
    axis = 1 if scale_of_file.shape[0] == changed.shape[0] else 0
    factors = magnitude / mx.linalg.norm(changed, axis=axis)
    mx.eval(factors)
    return (factors, None) if axis == 1 else (None, factors)


def _norm(layer: Any, parts: Tensors, scale: float) -> Any:
    """The norm, with its weight and bias changed in place."""
    for part, attribute in (("diff", "weight"), ("diff_b", "bias")):
        if part in parts:
            base, delta = layer[attribute], parts[part].reshape(-1)
            changed = base.astype(mx.float32) + scale * delta.astype(mx.float32)
            layer[attribute] = changed.astype(base.dtype)
    return layer
