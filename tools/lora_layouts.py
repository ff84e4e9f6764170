"""Writes gateway/lora_layouts.json: the layers that mflux puts LoRAs on, by model. `python -m tools.lora_layouts`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path
from typing import Any

from mflux.models.anima.model.anima_transformer.anima_transformer import AnimaTransformer
from mflux.models.anima.weights.anima_lora_mapping import AnimaLoRAMapping
from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
from mflux.models.common.lora.mapping.lora_loader import LoRALoader
from mflux.models.common.lora.mapping.lora_mapping import LoRATarget
from mflux.models.ernie_image.model.ernie_transformer.transformer import ErnieTransformer
from mflux.models.ernie_image.weights.ernie_lora_mapping import ErnieLoRAMapping
from mflux.models.fibo2.model.fibo2_transformer.fibo2_transformer import Fibo2Transformer
from mflux.models.fibo2.weights.fibo2_lora_mapping import Fibo2LoRAMapping
from mflux.models.flux.model.flux_transformer.transformer import Transformer
from mflux.models.flux.weights.flux_lora_mapping import FluxLoRAMapping
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.weights.flux2_lora_mapping import Flux2LoRAMapping
from mflux.models.flux3.model.flux3_transformer.flux3_transformer import Flux3Transformer
from mflux.models.flux3.weights.flux3_lora_mapping import Flux3LoRAMapping
from mflux.models.krea2.model.krea2_transformer.transformer import Krea2Transformer
from mflux.models.krea2.weights.krea2_lora_mapping import Krea2LoRAMapping
from mflux.models.moss_image.model.moss_image_transformer.moss_image_transformer import MOSSImageTransformer
from mflux.models.moss_image.weights.moss_image_lora_mapping import MOSSImageLoRAMapping
from mflux.models.qwen.model.qwen_transformer.qwen_transformer import QwenTransformer
from mflux.models.qwen.weights.qwen_lora_mapping import QwenLoRAMapping
from mflux.models.qwen21.model.qwen21_transformer.qwen21_transformer import Qwen21Transformer
from mflux.models.qwen21.weights.qwen21_lora_mapping import Qwen21LoRAMapping
from mflux.models.z_image.model.z_image_transformer.transformer import ZImageTransformer
from mflux.models.z_image.weights.z_image_lora_mapping import ZImageLoRAMapping
from mlx import nn

from engine.catalog import EMBEDDED, EMBEDDED_PATH
from gateway.lora_layers import matrix_of

FILE = Path(__file__).parent.parent / "gateway" / "lora_layouts.json"
Layout = dict[str, tuple[int, int]]


def _overridden(cls: Callable[..., nn.Module]) -> Callable[[ModelConfig], nn.Module]:
    return lambda config: cls(**(config.transformer_overrides or {}))


def _flux1(config: ModelConfig) -> nn.Module:
    return Transformer(model_config=config, num_transformer_blocks=1, num_single_transformer_blocks=1)


# What each model's initializer builds, by what its name in mflux's table begins with; the longest one counts.
ARCHITECTURES: dict[str, tuple[Callable[[ModelConfig], nn.Module], Any]] = {
    "dev": (_flux1, FluxLoRAMapping),
    "schnell": (_flux1, FluxLoRAMapping),
    "krea-dev": (_flux1, FluxLoRAMapping),
    "flux2-": (_overridden(Flux2Transformer), Flux2LoRAMapping),
    "flux3-": (_overridden(Flux3Transformer), Flux3LoRAMapping),
    "krea-2": (_overridden(Krea2Transformer), Krea2LoRAMapping),
    "qwen-image": (_overridden(QwenTransformer), QwenLoRAMapping),
    "qwen-image-2.1": (_overridden(Qwen21Transformer), Qwen21LoRAMapping),
    "z-image": (_overridden(ZImageTransformer), ZImageLoRAMapping),
    "ernie-image": (_overridden(ErnieTransformer), ErnieLoRAMapping),
    "moss-image": (_overridden(MOSSImageTransformer), MOSSImageLoRAMapping),
    "fibo2": (_overridden(Fibo2Transformer), Fibo2LoRAMapping),
    "anima": (_overridden(AnimaTransformer), AnimaLoRAMapping),
}


def layouts() -> dict[str, Layout]:
    """By geometry. No weights are made: MLX is lazy."""
    found = {}
    for geometry, config in AVAILABLE_MODELS.items():
        if begins := [name for name in ARCHITECTURES if geometry.startswith(name)]:
            build, mapping = ARCHITECTURES[max(begins, key=len)]
            found[geometry] = layout_of(build(config), mapping.get_mapping())
    config = json.loads((EMBEDDED_PATH / "transformer" / "config.json").read_text(encoding="utf-8"))
    taken = signature(Flux2Transformer.__init__).parameters
    tiny = Flux2Transformer(**{key: value for key, value in config.items() if key in taken})
    found[EMBEDDED] = layout_of(tiny, Flux2LoRAMapping.get_mapping())
    return found


def layout_of(transformer: nn.Module, targets: Iterable[LoRATarget]) -> Layout:
    """The layers that files may name, with the sizes of their matrices there."""
    sizes: dict[str, dict[str, tuple[int, int]]] = {}
    for target in targets:
        try:
            module = LoRALoader._get_target_module(transformer, target.model_path.replace("{block}", "0"))
            outputs, inputs = module.weight.shape
        except (AttributeError, IndexError, KeyError, ValueError):
            continue  # what this one of the family does not have
        for pattern in (*target.possible_up_patterns, *target.possible_lokr_w1_patterns):
            if matrix := matrix_of(pattern):
                layer = matrix.layer.replace("{block}", "#")
                sizes.setdefault(layer, {})[target.model_path] = (inputs, outputs)
    # One matrix for several of our layers, as for q, k and v, has all their outputs.
    return {
        layer: (next(iter(parts.values()))[0], sum(outputs for _, outputs in parts.values()))
        for layer, parts in sorted(sizes.items())
    }


def packed(found: dict[str, Layout]) -> str:
    """As the file keeps it: equal layouts once."""
    different: list[Layout] = []
    for layout in found.values():
        if layout not in different:
            different.append(layout)
    numbers = {geometry: different.index(layout) for geometry, layout in sorted(found.items())}
    lines = ",\n".join(json.dumps(layout, separators=(",", ":")) for layout in different)
    return f'{{"geometries": {json.dumps(numbers)},\n"layouts": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(packed(layouts()), encoding="utf-8")
