"""LoRAs of a loaded transformer, applied and removed without loading it again."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
from mflux.models.common.lora.mapping.lora_loader import LoRALoader

from engine.lora_layouts import Table, read, table_of
from engine.pipelines.common.lora_deltas import Deltas, Tensors
from engine.pipelines.common.lora_layers import sheet_of

Loras = tuple[tuple[str, float], ...]
"""Absolute files with their scales, in the order in which they are applied."""


class LoraFault(Exception):
    """A LoRA file cannot be applied. `reason` is the rest of a sentence about it."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(reason)


class LoraStack:
    """LoRAs applied to a transformer. Its original weights are kept by reference and take no additional memory.

    `architecture` selects the LoRA table; None for a model that takes no LoRAs.
    """

    def __init__(self, transformer: Any, architecture: str | None) -> None:
        self._transformer = transformer
        self._architecture = architecture
        self._table: Table | None = None
        self._bare = transformer.parameters()
        self._layers: dict[str, Any] = {}
        """Original layers that are replaced at present."""
        self._applied: Loras = ()

    def apply(self, loras: Loras) -> None:
        """Apply exactly these LoRAs; an empty tuple removes all.

        Raises: LoraFault for a file that does not fit the model; then no LoRA is applied.
        """
        if loras == self._applied:
            return
        self._remove_all()
        try:
            for file, scale in loras:
                self._apply_file(file, scale)
            mx.eval(self._transformer.parameters())
        except BaseException:
            self._remove_all()
            raise
        self._applied = loras

    def _apply_file(self, file: str, scale: float) -> None:
        try:
            tensors, metadata = cast(tuple[Tensors, dict[str, str]], mx.load(file, return_metadata=True))
        except (OSError, ValueError, RuntimeError) as error:
            raise LoraFault(file, "cannot be read") from error
        reading = read({name: array.shape for name, array in tensors.items()}, self._rows(file))
        if reading.unfit is not None:
            raise LoraFault(file, reading.unfit)
        try:
            deltas = Deltas(tensors, metadata)
            for change in reading.changes:
                layers = [LoRALoader._get_target_module(self._transformer, path) for path in change.modules]
                for path, layer, added in zip(change.modules, layers, deltas.adapt(change, layers, scale), strict=True):
                    if added is not layer:
                        self._layers.setdefault(path, layer)
                        LoRALoader._replace_target_module(self._transformer, path, added)
        except ValueError as error:
            raise LoraFault(file, str(error)) from error
        except TypeError as error:
            raise LoraFault(file, "uses DoRA, which cannot be applied beside a ControlNet") from error

    def _rows(self, file: str) -> Table:
        if self._architecture is None:
            raise LoraFault(file, "is put on a model that takes none")
        if self._table is None:
            self._table = table_of(self._architecture, sheet_of(self._transformer))
        return self._table

    def _remove_all(self) -> None:
        self._applied = ()
        for path, layer in self._layers.items():
            LoRALoader._replace_target_module(self._transformer, path, layer)
        self._layers.clear()
        self._transformer.update(self._bare)
