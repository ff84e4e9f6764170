"""Layers with LoRAs: MLX modules that take the place of a layer and add deltas to it.

Deltas stored as small factors stay that way: the dense delta of a LoHa, or of a LoKr over several modules, exists only
while its layer is computed. A `diff` is dense: it takes as much memory as the layer at the file's precision (75 MB for
a 3072x12288 layer at 16 bits) until it is removed. A DoRA makes its layer dense once, in float32, when it is applied,
and keeps one number for each row or column.
"""

from __future__ import annotations

from typing import Any, Protocol

import mlx.core as mx
from mflux.models.common.lora.layer.dense_weight import dense_weight, is_fp8_linear
from mlx import nn

from engine.lora_layouts import Module, Sheet


class Delta(Protocol):
    """Delta of a weight (outputs, inputs), before scaling."""

    def multiply(self, x: mx.array) -> mx.array:
        """Product of `x` (..., inputs) and the delta: (..., outputs), in x's precision."""

    def dense(self) -> mx.array:
        """The whole delta, in float32."""

    def rows(self, index: mx.array) -> Delta:
        """The delta of these rows only."""


class LowRank(nn.Module):
    """LoRA: `down` (inputs, rank) and `up` (rank, outputs), transposed as in mflux."""

    def __init__(self, down: mx.array, up: mx.array) -> None:
        super().__init__()
        self.down, self.up = down, up

    def multiply(self, x: mx.array) -> mx.array:
        return mx.matmul(mx.matmul(x, self.down.astype(x.dtype)), self.up.astype(x.dtype))

    def dense(self) -> mx.array:
        return mx.matmul(self.down.astype(mx.float32), self.up.astype(mx.float32)).T

    def rows(self, index: mx.array) -> LowRank:
        return LowRank(self.down, self.up[:, index])


class Hadamard(nn.Module):
    """LoHa: the element-wise product of two products of (outputs, rank) with (rank, inputs)."""

    def __init__(self, first: tuple[mx.array, mx.array], second: tuple[mx.array, mx.array], scale: float) -> None:
        super().__init__()
        self.first, self.second, self.factor = list(first), list(second), scale

    def multiply(self, x: mx.array) -> mx.array:
        return mx.matmul(x, self.dense().astype(x.dtype).T)

    def dense(self) -> mx.array:
        one, other = (mx.matmul(*(part.astype(mx.float32) for part in pair)) for pair in (self.first, self.second))
        return self.factor * one * other

    def rows(self, index: mx.array) -> Hadamard:
        (a, b), (c, d) = self.first, self.second
        return Hadamard((a[index], b), (c[index], d), self.factor)


class Kronecker(nn.Module):
    """LoKr: the Kronecker product of two matrices, or some rows of it."""

    def __init__(self, first: mx.array, second: mx.array, scale: float, index: mx.array | None = None) -> None:
        super().__init__()
        self.first, self.second, self.factor = first, second, scale
        self.index = index

    def multiply(self, x: mx.array) -> mx.array:
        if self.index is not None:
            return mx.matmul(x, self.dense().astype(x.dtype).T)
        # The product itself is never computed: x, as a matrix of the factors' inputs, is multiplied by one and then the
        # other.
        first, second = self.first.astype(x.dtype), (self.factor * self.second).astype(x.dtype)
        cells = x.reshape(*x.shape[:-1], first.shape[1], second.shape[1])
        through = mx.matmul(first, mx.matmul(cells, second.T))
        return through.reshape(*x.shape[:-1], -1)

    def dense(self) -> mx.array:
        whole = mx.kron(self.first.astype(mx.float32), self.factor * self.second.astype(mx.float32))
        return whole if self.index is None else whole[self.index]

    def rows(self, index: mx.array) -> Kronecker:
        return Kronecker(self.first, self.second, self.factor, index if self.index is None else self.index[index])


class Dense(nn.Module):
    """`diff`: a dense delta."""

    def __init__(self, delta: mx.array) -> None:
        super().__init__()
        self.delta = delta

    def multiply(self, x: mx.array) -> mx.array:
        return mx.matmul(x, self.delta.astype(x.dtype).T)

    def dense(self) -> mx.array:
        return self.delta.astype(mx.float32)

    def rows(self, index: mx.array) -> Dense:
        return Dense(self.delta[index])


class AdaptedLayer(nn.Module):
    """A layer, `inner`, with the delta of one file at a scale. `inner` may be an AdaptedLayer itself.

    `rows` and `columns` are DoRA factors of the changed weight's rows, or columns; at most one of them is set.
    """

    def __init__(
        self,
        inner: Any,
        scale: float,
        delta: Delta | None,
        *,
        rows: mx.array | None = None,
        columns: mx.array | None = None,
        bias: mx.array | None = None,
    ) -> None:
        super().__init__()
        self.inner, self.scale, self.delta = inner, scale, delta
        self.rows, self.columns, self.more_bias = rows, columns, bias

    @property
    def weight(self) -> mx.array:
        """Weight of the layer without LoRAs, as it is stored: mflux reads the dtype of some."""
        weight: mx.array = self.inner.weight
        return weight

    @property
    def bias(self) -> mx.array:
        """Bias of the layer without LoRAs. Raises: AttributeError where it has none."""
        bias: mx.array = self.inner.bias
        return bias

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.inner(x)
        if self.delta is not None:
            y = y + self.scale * self._change(x, y)
        return y if self.more_bias is None else y + (self.scale * self.more_bias).astype(y.dtype)

    def _change(self, x: mx.array, y: mx.array) -> mx.array:
        delta = self.delta
        assert delta is not None
        if self.rows is not None:
            rows = self.rows.astype(y.dtype)
            return (rows - 1) * (y - self._biases(y)) + rows * delta.multiply(x)
        if self.columns is not None:
            scaled = x * self.columns.astype(x.dtype)
            return self.inner(scaled) - y + delta.multiply(scaled)
        return delta.multiply(x)

    def _biases(self, y: mx.array) -> mx.array:
        return biases(self.inner).astype(y.dtype)


def biases(layer: Any) -> mx.array:
    """Sum of all biases of a layer."""
    if isinstance(layer, AdaptedLayer):
        more = layer.more_bias
        return biases(layer.inner) if more is None else biases(layer.inner) + layer.scale * more
    bias = layer.get("bias")
    return mx.zeros(1) if bias is None else bias.astype(mx.float32)


def weights(layer: Any) -> mx.array:
    """Effective weight (outputs, inputs) of a layer, in float32, however it is stored.

    Raises: TypeError for a layer that is no plain linear layer, such as one with a ControlNet.
    """
    if isinstance(layer, AdaptedLayer):
        before = weights(layer.inner)
        if layer.delta is None:
            return before
        changed = before + layer.delta.dense()
        if layer.rows is not None:
            changed = changed * layer.rows[:, None]
        elif layer.columns is not None:
            changed = changed * layer.columns
        return before + layer.scale * (changed - before)
    if "weight" not in layer:
        raise TypeError(type(layer).__name__)
    return dense_weight(layer).astype(mx.float32)


def sheet_of(transformer: nn.Module) -> Sheet:
    """Sheet of a model without LoRAs: the modules that LoRAs can change."""
    found: dict[str, Module] = {}
    wrapped: set[str] = set()
    for path, module in sorted(transformer.named_modules()):
        if any(path.startswith(f"{outer}.") for outer in wrapped):
            continue
        linear = module if "weight" in module else module.get("linear")
        if not path or linear is None or isinstance(linear, nn.Embedding) or "weight" not in linear:
            continue
        if linear is not module:
            if not hasattr(type(module), "weight"):
                continue
            wrapped.add(path)
        if (size := _module(linear)) is not None:
            found[path] = size
    return Sheet.of(found)


def _module(layer: Any) -> Module | None:
    weight, bias = layer.weight, layer.get("bias") is not None
    if isinstance(layer, nn.QuantizedLinear):
        return Module(weight.shape[0], layer.scales.shape[1] * layer.group_size, bias)
    if weight.ndim == 2:
        return Module(weight.shape[0], weight.shape[1], bias)
    if weight.ndim == 1 and "Norm" in type(layer).__name__:
        return Module(weight.shape[0], None, bias)
    return None


__all__ = [
    "AdaptedLayer",
    "Delta",
    "Dense",
    "Hadamard",
    "Kronecker",
    "LowRank",
    "biases",
    "is_fp8_linear",
    "sheet_of",
    "weights",
]
