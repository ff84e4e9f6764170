"""Loading of weights layer by layer: mflux evaluates all of them at once, with the unquantised ones in memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from types import SimpleNamespace
from typing import Any, TypeVar

import mlx.core as mx
from mflux.models.common.weights.loading.weight_loader import WeightLoader
from mlx.utils import tree_flatten

from engine.pipelines.common.patching import patched

P = TypeVar("P")

EVALUATING = (
    "mflux.models.anima.anima_initializer",
    "mflux.models.ernie_image.ernie_image_initializer",
    "mflux.models.ideogram4.ideogram4_initializer",
    "mflux.models.krea2.krea2_initializer",
    "mflux.models.lens.variants.txt2img.lens_image",
    "mflux.models.moss_image.moss_image_initializer",
)
"""Modules of mflux that evaluate a whole model while they build it."""


def load_by_layer(build: Callable[[], P], *, whole: bool = True) -> P:
    """Pipeline made by `build`, with its weights in memory. The peak is the memory of the pipeline and of one
    unquantised layer; files are read as they are needed. Without `whole` no weights are read yet.
    """
    with _lazy_mflux():
        pipeline = build()
    gc.collect()  # reference cycles of mflux's loader hold the unquantised arrays
    if whole:
        evaluate_parameters(pipeline)
    return pipeline


def evaluate_parameters(model: Any) -> None:
    """Evaluate the parameters of a pipeline or a part of one, a layer at a time."""
    before = mx.set_cache_limit(0)
    try:
        leaves: list[tuple[str, Any]] = tree_flatten(model.parameters())
        for _, layer in groupby(leaves, key=lambda leaf: leaf[0].rpartition(".")[0]):
            mx.eval([array for _, array in layer])
    finally:
        mx.set_cache_limit(before)


@contextmanager
def _lazy_mflux() -> Iterator[None]:
    """During the context mflux evaluates nothing, and reads 8-bit floats from their file only when they are
    evaluated.
    """
    with ExitStack() as stack:
        for name in EVALUATING:
            if (module := sys.modules.get(name)) is not None:
                stack.enter_context(patched(module, "mx", _LazyMlx()))
        native = staticmethod(WeightLoader._load_multi_glob)
        stack.enter_context(patched(WeightLoader, "_load_fp8_safetensors", native))
        yield


class _LazyMlx(SimpleNamespace):
    """MLX for one module of mflux, without evaluation."""

    def __getattr__(self, name: str) -> Any:
        return getattr(mx, name)

    def eval(self, *_: Any) -> None:
        """Does nothing: `evaluate_parameters` evaluates."""
