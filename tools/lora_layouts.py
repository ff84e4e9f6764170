"""Writes engine/lora_layouts/sheets.json: the modules of each model that LoRAs can change, and the names that mflux's
mappings have for them.

`python -m tools.lora_layouts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import mlx.core as mx
from mflux.models.anima.model.anima_transformer.anima_transformer import AnimaTransformer
from mflux.models.anima.weights.anima_lora_mapping import AnimaLoRAMapping
from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
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
from mflux.models.ideogram4.model.ideogram4_transformer import Ideogram4Transformer
from mflux.models.ideogram4.model.ideogram4_transformer.fp8_linear import Fp8Linear
from mflux.models.ideogram4.weights import Ideogram4LoRAMapping
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
from engine.lora_layouts.keys import key_of, without_prefixes
from engine.lora_layouts.rows import Row
from engine.lora_layouts.sheets import Sheet
from engine.lora_layouts.tables import FILE
from engine.pipelines.common.lora_layers import sheet_of


def _overridden(cls: Callable[..., nn.Module]) -> Callable[[ModelConfig], nn.Module]:
    return lambda config: cls(**(config.transformer_overrides or {}))


@dataclass(frozen=True)
class Architecture:
    """Architecture: `name` is that of the table, `build` makes the transformer that each model's initializer makes,
    `mapping` is mflux's own.
    """

    name: str
    build: Callable[[ModelConfig], nn.Module]
    mapping: Any


_FLUX1 = Architecture("flux1", lambda config: Transformer(model_config=config), FluxLoRAMapping)
ARCHITECTURES: dict[str, Architecture] = {
    "dev": _FLUX1,
    "schnell": _FLUX1,
    "krea-dev": _FLUX1,
    "flux2-": Architecture("flux2", _overridden(Flux2Transformer), Flux2LoRAMapping),
    "flux3-": Architecture("flux3", _overridden(Flux3Transformer), Flux3LoRAMapping),
    "krea-2": Architecture("krea2", _overridden(Krea2Transformer), Krea2LoRAMapping),
    "qwen-image": Architecture("qwen", _overridden(QwenTransformer), QwenLoRAMapping),
    "qwen-image-2.1": Architecture("qwen21", _overridden(Qwen21Transformer), Qwen21LoRAMapping),
    "z-image": Architecture("z_image", _overridden(ZImageTransformer), ZImageLoRAMapping),
    "ernie-image": Architecture("ernie", _overridden(ErnieTransformer), ErnieLoRAMapping),
    "moss-image": Architecture("moss", _overridden(MOSSImageTransformer), MOSSImageLoRAMapping),
    "fibo2": Architecture("fibo2", _overridden(Fibo2Transformer), Fibo2LoRAMapping),
    "anima": Architecture("anima", _overridden(AnimaTransformer), AnimaLoRAMapping),
    "ideogram-4": Architecture("ideogram4", lambda _: ideogram4(), Ideogram4LoRAMapping),
}
"""Architectures by the beginning of a model's name in mflux's table; the longest match counts."""


def ideogram4() -> nn.Module:
    """mflux leaves its large layers empty until they are loaded."""
    model = Ideogram4Transformer()
    for _, layer in model.named_modules():
        if isinstance(layer, Fp8Linear):
            layer.weight = mx.zeros((layer.out_features, layer.in_features), dtype=mx.uint8)
    return model


def architecture_of(geometry: str) -> Architecture | None:
    begins = [name for name in ARCHITECTURES if geometry.startswith(name)]
    return ARCHITECTURES[max(begins, key=len)] if begins else None


def packed() -> str:
    """Text of the file; equal sheets are stored once. No weights are computed: MLX is lazy."""
    sheets: list[dict[str, Any]] = []
    geometries: dict[str, int] = {}
    spellings: dict[str, dict[str, list[Any]]] = {}

    def put(geometry: str, architecture: Architecture, transformer: nn.Module) -> None:
        sheet = sheet_of(transformer)
        kept = {"architecture": architecture.name, "modules": sheet.pack()}
        if kept not in sheets:
            sheets.append(kept)
        geometries[geometry] = sheets.index(kept)
        spelled = spellings.setdefault(architecture.name, {})
        for layer, row in spellings_of(architecture.mapping.get_mapping(), sheet).items():
            spelled[layer] = [list(row.modules), int(row.swapped)]

    for geometry, config in AVAILABLE_MODELS.items():
        if (architecture := architecture_of(geometry)) is not None:
            put(geometry, architecture, architecture.build(config))
    config = json.loads((EMBEDDED_PATH / "transformer" / "config.json").read_text(encoding="utf-8"))
    taken = signature(Flux2Transformer.__init__).parameters
    tiny = Flux2Transformer(**{key: value for key, value in config.items() if key in taken})
    put(EMBEDDED, ARCHITECTURES["flux2-"], tiny)

    def lines(found: Iterable[tuple[str, Any]]) -> str:
        return ",\n".join(f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in found)

    listed = ",\n".join(json.dumps(sheet, separators=(",", ":")) for sheet in sheets)
    return (
        f'{{"geometries": {json.dumps(dict(sorted(geometries.items())))},\n'
        f'"spellings": {{\n{lines(sorted(spellings.items()))}\n}},\n"sheets": [\n{listed}\n]}}\n'
    )


def spellings_of(targets: Iterable[LoRATarget], sheet: Sheet) -> dict[str, Row]:
    """Layer names of mflux's mapping that differ from the module's name."""
    spelled: dict[str, dict[str, LoRATarget]] = {}
    for target in targets:
        path = target.model_path.replace("{block}", "#")
        if path not in set(sheet):
            continue
        patterns = (
            *target.possible_up_patterns,
            *target.possible_lokr_w1_patterns,
            *target.possible_diff_patterns,
            *target.possible_diff_b_patterns,
        )
        for pattern in patterns:
            key = key_of(pattern)
            assert key is not None, pattern
            name = list(without_prefixes(key.layer))[-1].replace(".", "_").replace("{block}", "#")
            if name != path.replace(".", "_"):
                spelled.setdefault(name, {})[path] = target
    return {name: _row(found, sheet) for name, found in spelled.items()}


def _row(targets: dict[str, LoRATarget], sheet: Sheet) -> Row:
    """Modules in the order of the rows that mflux's transforms take from a fused matrix."""
    sizes = {path: sheet.find(path) for path in targets}
    total = sum(size.outputs for size in sizes.values() if size is not None)
    numbered = mx.arange(total)[:, None]

    def first(path: str) -> int:
        transform = targets[path].up_transform
        return 0 if transform is None else int(transform(numbered)[0, 0])

    paths = tuple(sorted(targets, key=first))
    return Row(paths, swapped=len(paths) == 1 and first(paths[0]) != 0)


if __name__ == "__main__":
    FILE.write_text(packed(), encoding="utf-8")
