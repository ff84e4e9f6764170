"""Layers with LoRAs: MLX modules that take the place of a layer and add deltas to it.

A layer is linear, with a weight (outputs, inputs), or a convolution, with a weight (outputs, height, width, inputs) for
images (batch, height, width, channels). Its delta has the shape of its weight. A row is what makes one output; a column
is what one input is multiplied by, at all points of a kernel.

Deltas stored as small factors stay that way: the dense delta of a LoHa, or of a LoKr over several modules or of a
convolution, exists only while its layer is computed. Where the factors are hardly smaller than the layer, as in narrow
layers and for a `diff`, a merged weight takes their place until the LoRA is removed (75 MB for a 3072x12288 layer at 16
bits). A DoRA makes its layer dense once, in
float32, when it is applied, and keeps one number for each row or column.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import mlx.core as mx
from mflux.models.common.lora.layer.dense_weight import dense_weight, is_fp8_linear
from mlx import nn
from mlx.utils import tree_flatten

from engine.lora_layouts import Module, Sheet

MERGED_MOST = 2
"""Size of a merged weight relative to the factors that it replaces."""


@dataclass(frozen=True, slots=True)
class Window:
    """How the kernel of a convolution is moved over an image; pairs are (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def is_point(self) -> bool:
        """Whether the convolution is a matrix for each pixel."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)

    def kernel_of(self, matrix: mx.array) -> mx.array:
        """Kernel (outputs, height, width, inputs) from a file's matrix, whose columns are (inputs, height, width)."""
        height, width = self.kernel
        return matrix.reshape(matrix.shape[0], -1, height, width).transpose(0, 2, 3, 1)

    def convolve(self, x: mx.array, kernel: mx.array) -> mx.array:
        """Convolution of images `x` (batch, height, width, inputs)."""
        if self.is_point:
            return mx.matmul(x, kernel.reshape(kernel.shape[0], -1).T)
        return mx.conv2d(x, kernel, stride=self.stride, padding=self.padding, dilation=self.dilation)


def _apply(x: mx.array, weight: mx.array, window: Window | None) -> mx.array:
    """What a layer with this weight and no bias makes of `x`."""
    return mx.matmul(x, weight.T) if window is None else window.convolve(x, weight)


def _shaped(matrix: mx.array, window: Window | None) -> mx.array:
    """Weight from a file's matrix."""
    return matrix if window is None else window.kernel_of(matrix)


class Delta(Protocol):
    """Delta of a weight, before scaling."""

    def multiply(self, x: mx.array) -> mx.array:
        """What the delta alone makes of `x`, in x's precision."""

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


class LowRankKernel(nn.Module):
    """LoCon: `kernel` (rank, height, width, inputs) and `up` (rank, outputs)."""

    def __init__(self, kernel: mx.array, up: mx.array, window: Window) -> None:
        super().__init__()
        self.kernel, self.up, self.window = kernel, up, window

    def multiply(self, x: mx.array) -> mx.array:
        return mx.matmul(self.window.convolve(x, self.kernel.astype(x.dtype)), self.up.astype(x.dtype))

    def dense(self) -> mx.array:
        rank, *sides = self.kernel.shape
        matrix = self.kernel.astype(mx.float32).reshape(rank, -1)
        return mx.matmul(self.up.astype(mx.float32).T, matrix).reshape(-1, *sides)

    def rows(self, index: mx.array) -> LowRankKernel:
        return LowRankKernel(self.kernel, self.up[:, index], self.window)


class Hadamard(nn.Module):
    """LoHa: the element-wise product of two products of (outputs, rank) with (rank, a file's columns)."""

    def __init__(
        self,
        first: tuple[mx.array, mx.array],
        second: tuple[mx.array, mx.array],
        scale: float,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        self.first, self.second, self.factor, self.window = list(first), list(second), scale, window

    def multiply(self, x: mx.array) -> mx.array:
        return _apply(x, self.dense().astype(x.dtype), self.window)

    def dense(self) -> mx.array:
        one, other = (mx.matmul(*(part.astype(mx.float32) for part in pair)) for pair in (self.first, self.second))
        return _shaped(self.factor * one * other, self.window)

    def rows(self, index: mx.array) -> Hadamard:
        (a, b), (c, d) = self.first, self.second
        return Hadamard((a[index], b), (c[index], d), self.factor, self.window)


class Kronecker(nn.Module):
    """LoKr: the Kronecker product of two matrices, or some rows of it. Each matrix is whole, or a product of two."""

    def __init__(
        self,
        first: tuple[mx.array, ...],
        second: tuple[mx.array, ...],
        window: Window | None = None,
        index: mx.array | None = None,
    ) -> None:
        super().__init__()
        self.first, self.second, self.window = list(first), list(second), window
        self.index = index

    def multiply(self, x: mx.array) -> mx.array:
        if self.index is not None or self.window is not None:
            return _apply(x, self.dense().astype(x.dtype), self.window)
        # The product itself is never computed: x, as a matrix of the factors' inputs, is multiplied by one and then the
        # other.
        cells = x.reshape(*x.shape[:-1], self.first[-1].shape[1], self.second[-1].shape[1])
        for factor in reversed(self.second):
            cells = mx.matmul(cells, factor.astype(x.dtype).T)
        for factor in reversed(self.first):
            cells = mx.matmul(factor.astype(x.dtype), cells)
        return cells.reshape(*x.shape[:-1], -1)

    def dense(self) -> mx.array:
        first, second = (
            reduce(mx.matmul, (one.astype(mx.float32) for one in factors)) for factors in (self.first, self.second)
        )
        whole = mx.kron(first, second)
        return _shaped(whole if self.index is None else whole[self.index], self.window)

    def rows(self, index: mx.array) -> Kronecker:
        rows = index if self.index is None else self.index[index]
        return Kronecker(tuple(self.first), tuple(self.second), self.window, rows)


class Dense(nn.Module):
    """`diff`: a dense delta."""

    def __init__(self, delta: mx.array, window: Window | None = None) -> None:
        super().__init__()
        self.delta, self.window = delta, window

    def multiply(self, x: mx.array) -> mx.array:
        return _apply(x, self.delta.astype(x.dtype), self.window)

    def dense(self) -> mx.array:
        return self.delta.astype(mx.float32)

    def rows(self, index: mx.array) -> Dense:
        return Dense(self.delta[index], self.window)


class FirstInputs(nn.Module):
    """A delta for the first `inputs` of a layer's `width` inputs; that of the others is zero."""

    def __init__(self, delta: Delta, inputs: int, width: int) -> None:
        super().__init__()
        self.delta, self.inputs, self.width = delta, inputs, width

    def multiply(self, x: mx.array) -> mx.array:
        return self.delta.multiply(x[..., : self.inputs])

    def dense(self) -> mx.array:
        delta = self.delta.dense()
        return mx.pad(delta, [*((0, 0),) * (delta.ndim - 1), (0, self.width - self.inputs)])

    def rows(self, index: mx.array) -> FirstInputs:
        return FirstInputs(self.delta.rows(index), self.inputs, self.width)


class AdaptedLayer(nn.Module):
    """A layer, `inner`, with the change of one file at a scale. `inner` may be an AdaptedLayer itself.

    The changed weight is the layer's weight plus `delta`, its rows multiplied by `rows` and its columns by `columns`:
    the factors of a DoRA, or of an IA3, which has no delta.
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
        if self.delta is not None or self.rows is not None or self.columns is not None:
            y = y + self.scale * self._change(x, y)
        return y if self.more_bias is None else y + (self.scale * self.more_bias).astype(y.dtype)

    def _change(self, x: mx.array, y: mx.array) -> mx.array:
        """What the changed weight makes of `x`, without what the inner layer makes of it, which is `y`."""
        if self.columns is None:
            added = self._added(x)
            if self.rows is None:
                return added
            # Subtracted in float32: the factors are close to 1.
            return (self.rows - 1).astype(y.dtype) * (y - self._biases(y)) + self.rows.astype(y.dtype) * added
        scaled = x * self.columns.astype(x.dtype)
        changed = self.inner(scaled) + self._added(scaled)
        if self.rows is None:
            return changed - y
        bias = self._biases(y)
        return self.rows.astype(y.dtype) * (changed - bias) - (y - bias)

    def _added(self, x: mx.array) -> mx.array:
        return mx.zeros((), x.dtype) if self.delta is None else self.delta.multiply(x)

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
    """Effective weight of a layer, in float32, however it is stored.

    Raises: TypeError for a layer that is no plain linear layer or convolution, such as one with a ControlNet.
    """
    if isinstance(layer, AdaptedLayer):
        before = weights(layer.inner)
        changed = before if layer.delta is None else before + layer.delta.dense()
        if layer.rows is not None:
            changed = changed * layer.rows.reshape(-1, *(1,) * (changed.ndim - 1))
        if layer.columns is not None:
            changed = changed * layer.columns
        return before + layer.scale * (changed - before)
    if "weight" not in layer:
        raise TypeError(type(layer).__name__)
    return dense_weight(layer).astype(mx.float32)


def merged_where_cheap(layer: AdaptedLayer) -> Any:
    """A layer of its own with the changes of all files merged into its weight, where that takes at most twice the
    memory of the factors: these would cost half as much time as the layer itself, or more. Otherwise the layer.

    A quantised layer, and one that does more than multiply, stays as it is.
    """
    bare = bare_layer(layer)
    if type(bare) not in (nn.Linear, nn.Conv2d) or bare.weight.size > MERGED_MOST * _stored(layer):
        return layer
    merged = copy(bare)
    merged.weight = weights(layer).astype(bare.weight.dtype)
    bias = biases(layer)
    if "bias" in bare or bias.size > 1:
        merged.bias = bias.astype(bare.weight.dtype)
    mx.eval(merged.parameters())
    return merged


def _stored(layer: Any) -> int:
    """Numbers that the deltas of a layer consist of."""
    count = 0
    while isinstance(layer, AdaptedLayer):
        delta: Any = layer.delta
        count += 0 if delta is None else sum(array.size for _, array in tree_flatten(delta.parameters()))
        layer = layer.inner
    return count


def bare_layer(layer: Any) -> Any:
    """The layer without LoRAs."""
    while isinstance(layer, AdaptedLayer):
        layer = layer.inner
    return layer


def window_of(layer: Any) -> Window | None:
    """Window of a convolution, with or without LoRAs; None for any other layer."""
    bare = bare_layer(layer)
    if not isinstance(bare, nn.Conv2d):
        return None
    _, height, width, _ = bare.weight.shape
    return Window((height, width), _pair(bare.stride), _pair(bare.padding), _pair(bare.dilation))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def modules_of(model: nn.Module) -> dict[str, Module]:
    """Modules of a model without LoRAs that LoRAs can change, by path."""
    found: dict[str, Module] = {}
    wrapped: set[str] = set()
    for path, module in sorted(model.named_modules()):
        if any(path.startswith(f"{outer}.") for outer in wrapped):
            continue
        linear = module if "weight" in module else module.get("linear")
        if not path or linear is None or isinstance(linear, nn.Embedding) or "weight" not in linear:
            continue
        if linear is not module:
            if not hasattr(type(module), "weight"):
                continue
            wrapped.add(path)
        if (size := module_of(linear)) is not None:
            found[path] = size
    return found


def sheet_of(model: nn.Module) -> Sheet:
    """Sheet of a model without LoRAs."""
    return Sheet.of(modules_of(model))


def module_of(layer: Any) -> Module | None:
    """Sizes of a layer without LoRAs; None for one that LoRAs cannot change."""
    weight, bias = layer.weight, layer.get("bias") is not None
    if isinstance(layer, nn.QuantizedLinear):
        return Module(weight.shape[0], layer.scales.shape[1] * layer.group_size, bias)
    if isinstance(layer, nn.Conv2d):
        outputs, height, width, inputs = weight.shape
        return Module(outputs, inputs, bias, height) if height == width and layer.groups == 1 else None
    if weight.ndim == 2:
        return Module(weight.shape[0], weight.shape[1], bias)
    if weight.ndim == 1 and "Norm" in type(layer).__name__:
        return Module(weight.shape[0], None, bias)
    return None


__all__ = [
    "AdaptedLayer",
    "Delta",
    "Dense",
    "FirstInputs",
    "Hadamard",
    "Kronecker",
    "LowRank",
    "LowRankKernel",
    "Window",
    "bare_layer",
    "biases",
    "is_fp8_linear",
    "merged_where_cheap",
    "module_of",
    "modules_of",
    "sheet_of",
    "weights",
    "window_of",
]
