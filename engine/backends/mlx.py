"""MLX backend: mflux on Metal, CUDA or the CPU. Only the child process imports it, and uses it from one thread."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig

from engine import pipelines
from engine.catalog import ModelSpec
from engine.drawing import canvas
from engine.drawing.base import BackendError, Decode, FinishedImage, Model, Watcher
from engine.mlx_build import memory_of
from engine.pipelines.common.base import ImageTask, Pipeline, Upscaler
from engine.pipelines.common.finite import NotFinite, nan_message
from engine.pipelines.common.lora_stack import LoraFault, LoraUse
from engine.pipelines.cpu import replace_slow_functions
from engine.protocol import Generate, Memory, Upscale
from engine.safetensors import UnsafeFile, check_folder

CACHE_LIMIT_BYTES = 1_000_000_000
"""Freed buffers that MLX caches on a GPU. Without a limit images took longer and longer: 6.9, 80, 105 s on a 32 GB Mac.
"""


class MlxBackend:
    """Backend that keeps the model of the last job until another one is needed."""

    name = "mlx"

    def __init__(self, *, memory_limit_bytes: int | None = None, cache_limit_bytes: int | None = None) -> None:
        self.device = device_name()
        self.memory_limit_bytes = memory_limit_bytes or device_memory()
        self._cache_limit_bytes = cache_limit_bytes
        self._loaded: Model | None = None
        self._pipeline: Pipeline | None = None
        self._upscaler: Upscaler | None = None
        self._cached_for: object = None
        """What the buffers in MLX's cache were of."""
        if self.device == "cpu":
            # bfloat16 has no fast matmul on a CPU: 6 GFLOP/s against 61 in float32.
            ModelConfig.precision = mx.float32
            replace_slow_functions()
        elif cache_limit_bytes is None:
            self._cache_limit_bytes = CACHE_LIMIT_BYTES
        if self._cache_limit_bytes is not None:
            mx.set_cache_limit(self._cache_limit_bytes)
        if self.memory_limit_bytes is not None:
            mx.set_memory_limit(self.memory_limit_bytes)
        self.check_device()

    def holds(self, model: Model) -> bool:
        if self._loaded is None or self._loaded.key != model.key:
            return False
        return self._pipeline is None or self._pipeline.can_read(model.prompt_key)

    def load(self, model: Model) -> None:
        self._loaded = self._pipeline = self._upscaler = None
        self.clear()
        mx.reset_peak_memory()
        placed = model if model.copy is None else replace(model, path=model.copy, also=())
        for folder in (placed.path, *placed.also):
            check_weights(Path(folder))
        try:
            if model.spec.task == "upscale":
                self._upscaler = pipelines.load_upscaler(placed)
            else:
                self._pipeline = pipelines.load(placed)
        except RuntimeError as error:
            raise memory_error_or_same(error) from error
        self._loaded = model

    def draw(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> FinishedImage:
        return self.denoise(spec, plan, image, inputs, watcher)()

    def denoise(
        self, spec: ModelSpec, plan: Generate, image: int, inputs: Mapping[str, str], watcher: Watcher
    ) -> Decode:
        if self._pipeline is None:
            raise BackendError("bad_input", "The model upscales pictures and draws none.")
        frame = canvas.frame_of(plan, spec.native_px, inputs, grey_edges=spec.grey_edges)
        if (untouched := frame.untouched) is not None:
            return lambda: canvas.to_finished_image(untouched, untouched.size)
        loras = tuple(LoraUse(inputs[lora.name], lora.scale, lora.text_encoder_scale) for lora in plan.loras)
        names = {use.file: lora.name for lora, use in zip(plan.loras, loras, strict=True)}
        self._drop_stale_cache((plan.width_px, plan.height_px, plan.second_pass, len(plan.references)))
        mx.reset_peak_memory()
        try:
            with self._errors(plan), self._without_cache(plan.low_ram):
                decode_image = self._pipeline.denoise(ImageTask(plan, image, frame, loras, inputs), watcher)
        except LoraFault as fault:
            raise BackendError("bad_input", f"LoRA '{names[fault.file]}' cannot be used: it {fault.reason}.") from fault

        def decode() -> FinishedImage:
            with self._errors(plan), self._without_cache(plan.low_ram):
                decoded = decode_image()
            return canvas.to_finished_image(frame.finish(decoded), decoded.size)

        return decode

    @contextmanager
    def _errors(self, plan: Generate) -> Iterator[None]:
        """Context that turns MLX's errors, and pixels that are not finite, into a backend's errors."""
        try:
            yield
        except NotFinite as fault:
            raise self._not_finite_error(
                fault, [f"LoRA '{lora.name}' at scale {lora.scale:g}" for lora in plan.loras]
            ) from fault
        except RuntimeError as error:
            raise memory_error_or_same(error) from error

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> FinishedImage:
        if self._upscaler is None:
            raise BackendError("bad_input", "The model draws pictures and does not upscale them.")
        self._drop_stale_cache((plan.width_px, plan.height_px))
        mx.reset_peak_memory()
        try:
            made = self._upscaler.upscale(plan, image, watcher)
        except NotFinite as fault:
            raise self._not_finite_error(fault, []) from fault
        except RuntimeError as error:
            raise memory_error_or_same(error) from error
        return canvas.to_finished_image(made, made.size)

    def _not_finite_error(self, fault: NotFinite, loras: list[str]) -> BackendError:
        model = self._loaded
        bits = None if model is None else model.quantize or model.spec.stored_bits
        quantised = [f"the quantisation to {bits} bits"] if bits else []
        return BackendError("non_finite_picture", nan_message(fault.where, [*loras, *quantised]))

    def save(self, folder: str) -> None:
        loaded = self._pipeline or self._upscaler
        assert loaded is not None
        loaded.save(folder)

    def _drop_stale_cache(self, shape: object) -> None:
        """Empty MLX's cache where the next image has other sizes: on a CPU a full cache takes no newer buffers."""
        if self.device == "cpu" and shape != self._cached_for:
            mx.clear_cache()
        self._cached_for = shape

    @contextmanager
    def _without_cache(self, low_ram: bool) -> Iterator[None]:
        """With low_ram, MLX caches no freed memory during the context."""
        if not low_ram:
            yield
            return
        before = mx.set_cache_limit(0)
        try:
            yield
        finally:
            mx.set_cache_limit(before)

    def clear(self) -> None:
        gc.collect()
        mx.clear_cache()

    def check_device(self) -> None:
        mx.eval(mx.ones(1) + 1)

    def memory(self) -> Memory:
        return Memory(active_bytes=mx.get_active_memory(), peak_bytes=mx.get_peak_memory())


def device_name() -> str:
    """Name of the device: metal, cuda or cpu."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def device_memory() -> int | None:
    """Bytes that a GPU offers; None on a CPU, where the gateway asks the operating system."""
    return memory_of(mx.device_info())


def memory_error_or_same(error: RuntimeError) -> Exception:
    """MemoryError where the text of MLX's RuntimeError, its only class of error, says that memory ran out."""
    text = str(error).lower()
    return MemoryError() if "allocate" in text or "out of memory" in text or "outofmemory" in text else error


def check_weights(folder: Path) -> None:
    """Check the weights for damaged files before MLX loads them: MLX reads lazily and would fail later, beyond
    recovery. Raises: BackendError.
    """
    try:
        check_folder(folder)
    except UnsafeFile as error:
        raise BackendError("model_load_failed", f"The model cannot be loaded: {error.message}") from error
