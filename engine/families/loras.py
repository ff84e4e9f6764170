"""LoRAs put on a loaded transformer and taken off again, without loading it anew."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mflux.models.common.lora.layer.fused_linear_lora_layer import FusedLoRALinear
from mflux.models.common.lora.layer.linear_lokr_layer import LoKrLinear
from mflux.models.common.lora.layer.linear_lora_layer import LoRALinear
from mflux.models.common.lora.mapping.lora_loader import LoRALoader
from mflux.models.common.lora.mapping.lora_mapping import LoRATarget
from mlx.utils import tree_unflatten

from engine.backends.base import BackendError

Loras = tuple[tuple[str, float], ...]
"""Absolute files with their scales, in the order they are applied."""


class Wardrobe:
    """What a transformer wears. Its bare weights are kept by reference: they cost no memory of their own."""

    def __init__(self, transformer: Any, mapping: list[LoRATarget]) -> None:
        self._transformer = transformer
        self._mapping = mapping
        self._bare = transformer.parameters()
        self._worn: Loras = ()

    def wear(self, loras: Loras) -> None:
        """Exactly these, nothing where there are none.

        Raises: BackendError("bad_input") for a file that does not fit the model; then it wears nothing.
        """
        if loras == self._worn:
            return
        self._strip()
        if not loras:
            return
        paths, scales = zip(*loras, strict=True)
        try:
            # Not baked into the weights: a scale would be final, and small updates are lost to rounding.
            LoRALoader.load_and_apply_lora(self._mapping, self._transformer, list(paths), list(scales), bake_lora=False)
        except (ValueError, FileNotFoundError) as error:
            self._strip()
            raise BackendError("bad_input", "A LoRA does not fit this model.") from error
        mx.eval(self._transformer.parameters())
        self._worn = loras

    def _strip(self) -> None:
        self._worn = ()
        bare = [(name, inner) for name, module in self._transformer.named_modules() if (inner := _inside(module))]
        # A fused layer holds LoRAs of its own, which go with it.
        outermost = [(name, inner) for name, inner in bare if not any(name.startswith(f"{o}.") for o, _ in bare)]
        if outermost:
            self._transformer.update_modules(tree_unflatten(outermost))
        self._transformer.update(self._bare)


def _inside(module: Any) -> Any:
    """The linear layer that LoRAs were wrapped round, or None."""
    if isinstance(module, FusedLoRALinear):
        return module.base_linear
    return module.linear if isinstance(module, LoRALinear | LoKrLinear) else None
