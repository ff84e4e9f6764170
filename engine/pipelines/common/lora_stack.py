"""LoRAs of a loaded model, applied and removed without loading it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mflux.models.common.lora.mapping.lora_loader import LoRALoader
from mlx import nn

from engine.lora_layouts import STANDARD, TEXT_ENCODER, Table, read, table_of
from engine.pipelines.common.lora_deltas import Deltas, Tensors
from engine.pipelines.common.lora_layers import merged_where_cheap, modules_of


class LoraUse(NamedTuple):
    """A LoRA's absolute file and its scales, that of text encoders for models whose text encoders LoRAs can change."""

    file: str
    scale: float
    text_encoder_scale: float | None = None
    """None: `scale`."""

    def scale_of(self, path: str) -> float:
        """Scale for the module at a path."""
        of_text = path.startswith(TEXT_ENCODER) and self.text_encoder_scale is not None
        return cast(float, self.text_encoder_scale) if of_text else self.scale


Loras = tuple[LoraUse, ...]
"""LoRAs in the order in which they are applied."""


class Networks(nn.Module):
    """Networks of one model that LoRAs change together. `networks` has them by the names with which paths begin:
    `unet`, `text_encoder`, `text_encoder_2`.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, network in networks.items():
            setattr(self, name, network)


class LoraFault(Exception):
    """A LoRA file cannot be applied. `reason` is the rest of a sentence about it."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(reason)


class LoraStack:
    """LoRAs applied to a transformer, or to `Networks`. The original weights are kept by reference and take no
    additional memory.

    `architecture` selects the LoRA table: a family of Stable Diffusion for `Networks`; None for a model that takes no
    LoRAs.
    """

    def __init__(self, transformer: Any, architecture: str | None) -> None:
        self._transformer = transformer
        self._architecture = architecture
        self._table: Table | None = None
        self._bare = transformer.parameters()
        self._layers: dict[str, Any] = {}
        """Original layers that are replaced at present."""
        self._applied: Loras = ()
        self._of_text_encoders: dict[tuple[str, float], None] = {}

    def apply(self, loras: Loras) -> None:
        """Apply exactly these LoRAs; an empty tuple removes all.

        Raises: LoraFault for a file that does not fit the model; then no LoRA is applied.
        """
        if loras == self._applied:
            return
        self._remove_all()
        try:
            for use in loras:
                self._apply_file(use)
            self._merge()
            mx.eval(self._transformer.parameters())
        except BaseException:
            self._remove_all()
            raise
        self._applied = loras

    @property
    def text_encoder_loras(self) -> tuple[tuple[str, float], ...]:
        """Files and scales that change text encoders: prompts that were encoded with others are outdated."""
        return tuple(self._of_text_encoders)

    def _apply_file(self, use: LoraUse) -> None:
        file = use.file
        try:
            tensors, metadata = cast(tuple[Tensors, dict[str, str]], mx.load(file, return_metadata=True))
        except (OSError, ValueError, RuntimeError) as error:
            raise LoraFault(file, "cannot be read") from error
        reading = read({name: array.shape for name, array in tensors.items()}, self._rows(file))
        if reading.unfit is not None:
            raise LoraFault(file, reading.unfit)
        try:
            deltas = Deltas(tensors, metadata, column_lengths=self._architecture in STANDARD)
            for change in reading.changes:
                scale = use.scale_of(change.modules[0])
                if scale == 0:
                    continue
                if change.modules[0].startswith(TEXT_ENCODER):
                    self._of_text_encoders[file, scale] = None
                layers = [LoRALoader._get_target_module(self._transformer, path) for path in change.modules]
                for path, layer, added in zip(change.modules, layers, deltas.adapt(change, layers, scale), strict=True):
                    if added is not layer:
                        self._layers.setdefault(path, layer)
                        LoRALoader._replace_target_module(self._transformer, path, added)
        except ValueError as error:
            raise LoraFault(file, str(error)) from error
        except TypeError as error:
            raise LoraFault(file, "uses DoRA, which cannot be applied beside a ControlNet") from error

    def _merge(self) -> None:
        for path in self._layers:
            layer = LoRALoader._get_target_module(self._transformer, path)
            LoRALoader._replace_target_module(self._transformer, path, merged_where_cheap(layer))

    def _rows(self, file: str) -> Table:
        if self._architecture is None:
            raise LoraFault(file, "is put on a model that takes none")
        if self._table is None:
            self._table = table_of(self._architecture, modules_of(self._transformer))
        return self._table

    def _remove_all(self) -> None:
        self._applied = ()
        self._of_text_encoders.clear()
        for path, layer in self._layers.items():
            LoRALoader._replace_target_module(self._transformer, path, layer)
        self._layers.clear()
        self._transformer.update(self._bare)
