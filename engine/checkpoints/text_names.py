"""Names of a text encoder's layers in single files: those of transformers, or those of OpenCLIP.

Source: mlfoundations/open_clip src/open_clip/transformer.py; transformers models/clip/modeling_clip.py; diffusers 0.42
loaders/single_file_utils.py, convert_open_clip_checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from engine.checkpoints.sources import Source

ROOT = "text_model."
PROJECTION = "text_projection.weight"
KINDS = frozenset({"weight", "bias"})
_LAYER = re.compile(
    r"encoder\.layers\.[0-9]++(?:\.[a-zA-Z0-9_]++)++|embeddings\.(?:token|position)_embedding|final_layer_norm"
)
_OPEN_CLIP: Mapping[str, str] = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = re.compile(r"transformer\.resblocks\.([0-9]++)\.(.++)")
_OPEN_CLIP_LAYERS: Mapping[str, str] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_FUSED = "attn.in_proj"


def clip_sources(names: Collection[str], prefix: str) -> dict[str, Source]:
    """Sources of a text encoder with transformers' names, with or without `text_model.` before them.

    Other tensors below the prefix, such as `position_ids`, are not parameters.
    """
    found: dict[str, Source] = {}
    for name in names:
        if not name.startswith(prefix):
            continue
        bare = name.removeprefix(prefix).removeprefix(ROOT)
        layer, _, kind = bare.rpartition(".")
        if kind in KINDS and _LAYER.fullmatch(layer):
            found[ROOT + bare] = Source(name)
        elif bare == PROJECTION:
            found[PROJECTION] = Source(name)
    return found


def open_clip_sources(names: Collection[str], prefix: str) -> dict[str, Source]:
    """Sources of a text encoder with OpenCLIP's names. Other tensors below the prefix are not parameters."""
    return dict(
        pair for name in names if name.startswith(prefix) for pair in _open_clip(name.removeprefix(prefix), name)
    )


def _open_clip(bare: str, name: str) -> Iterator[tuple[str, Source]]:
    """Our parameters in the tensor `bare`."""
    if (single := _OPEN_CLIP.get(bare)) is not None:
        yield single, Source(name)
    elif bare == "text_projection":
        yield PROJECTION, Source(name, is_transposed=True)
    elif bare == PROJECTION:
        yield PROJECTION, Source(name)
    elif (layer := _OPEN_CLIP_LAYER.fullmatch(bare)) is not None:
        number, rest = layer.groups()
        kind = next((kind for kind in KINDS if rest.endswith((f".{kind}", f"_{kind}"))), None)
        if kind is None:
            return
        inner = rest[: -len(kind) - 1]
        place = f"text_model.encoder.layers.{number}"
        if inner == _FUSED:
            for third, one in enumerate(("q", "k", "v")):
                yield f"{place}.self_attn.{one}_proj.{kind}", Source(name, third=third)
        elif (ours := _OPEN_CLIP_LAYERS.get(inner)) is not None:
            yield f"{place}.{ours}.{kind}", Source(name)
