"""Files of LoRAs as trainers write them, by hand: no MLX."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

WEIGHTS = bytes(range(256))
TINY = {
    "transformer.single_transformer_blocks.0.attn.to_out.lora_A.weight": (4, 768),
    "transformer.single_transformer_blocks.0.attn.to_out.lora_B.weight": (192, 4),
}
"""What fits the embedded model."""
KLEIN_4B = {
    "diffusion_model.double_blocks.0.img_mlp.0.lora_A.weight": (16, 3072),
    "diffusion_model.double_blocks.0.img_mlp.0.lora_B.weight": (18432, 16),
}
FLUX1 = {
    "lora_unet_single_blocks_7_linear1.lora_down.weight": (8, 3072),
    "lora_unet_single_blocks_7_linear1.lora_up.weight": (21504, 8),
    "lora_unet_single_blocks_7_linear1.alpha": (),
}
Z_IMAGE = {
    "diffusion_model.layers.3.attention.to_q.lora_A.weight": (16, 3840),
    "diffusion_model.layers.3.attention.to_q.lora_B.weight": (3840, 16),
}
UNKNOWN = {"something.else": (16, 8)}
"""Of no model that is known here."""


def save_lora(folder: Path, name: str, shapes: Mapping[str, tuple[int, ...]] | None = None, /, **metadata: str) -> Path:
    """A file of one byte an element; `metadata` is its header's."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for key, shape in (UNKNOWN if shapes is None else shapes).items():
        begin, end = end, end + math.prod(shape)
        header[key] = {"dtype": "U8", "shape": shape, "data_offsets": [begin, end]}
    file = folder / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps(header).encode()
    weights = (WEIGHTS * (end // len(WEIGHTS) + 1))[:end]
    file.write_bytes(len(written).to_bytes(8, "little") + written + weights)
    file.chmod(0o644)
    return file
