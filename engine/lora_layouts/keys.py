"""Names of a LoRA file's tensors: the layer, and the part of its change. Pure string work.

Source: kohya-ss sd-scripts and LyCORIS (`lora_down`, `hada_*`, `lokr_*`, `dora_scale`, `w_norm`), PEFT
(`lora_A.NAME.weight`, `lora_magnitude_vector`), diffusers (`to_q_lora.down.weight`, `lora_linear_layer`), ComfyUI
(`diff`, `diff_b`, `set_weight`), OneTrainer and A1111 (`bundle_emb`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

NUMBERS_MOST = 8
"""Limit of the numbers in a layer's name; those of the models have three."""
PREFIXES_MOST = 6

_LYCORIS: tuple[str, ...] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
_LYCORIS += ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
_ADAPTED = {
    "lora_A": "down",
    "lora_B": "up",
    "lora_down": "down",
    "lora_up": "up",
    "lora_mid": "mid",
    "lora_magnitude_vector": "magnitude",
    **{name: name for name in _LYCORIS},
}
"""Parts that may be followed by the adapter's name, as PEFT writes it."""
_PLAIN = {
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "dora_scale": "dora_scale",
    "on_input": "on_input",
    "diff": "diff",
    "w_norm": "diff",
    "diff_b": "diff_b",
    "b_norm": "diff_b",
}
_WAYS = {"down": "down", "up": "up", "mid": "mid", "alpha": "alpha"}
"""Parts after `lora.`, `NAME_lora.` and the like."""
_HOLDERS = ("lora", "lora_linear_layer")
_METHODS = {
    **dict.fromkeys(("oft_diag", "oft_blocks", "oft_R", "oft_r", "oft_s"), "OFT"),
    **dict.fromkeys(("boft_R", "boft_s", "boft_blocks"), "BOFT"),
    **dict.fromkeys(("a1", "a2", "b1", "b2", "bm"), "GLoRA"),
    "ia3_l": "IA3 in PEFT's form",
    **dict.fromkeys(("vera_lambda_b", "vera_lambda_d"), "VeRA"),
    **dict.fromkeys(("lora_E", "ranknum"), "AdaLoRA"),
    "hra_u": "HRA",
    "set_weight": "a replacement of weights",
    "reshape_weight": "a change of a layer's size",
    "fourierft_spectrum": "FourierFT",
}
"""Methods that cannot be applied exactly, by a tensor's name."""
_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "lycoris_",
    "lora_unet_",
    "oft_unet_",
    "lora_transformer_",
    "model.",
    "unet.",
    "net.",
    "dit.",
    "transformer_",
    "_",
)
"""Prefixes that trainers put before a layer, in any order."""
_TEXT = (
    "lora_te",
    "text_encoder",
    "lora_prior_te",
    "conditioner.",
    "cond_stage_model.",
    "clip_",
    "te1_",
    "te2_",
    "te_",
)
_DIGITS = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class Key:
    """Layer and part in a tensor's name. `method` is set where the part cannot be applied."""

    layer: str
    part: str
    method: str | None = None


def key_of(name: str) -> Key | None:
    """Key of a tensor's name; None for a name that is not a LoRA's."""
    segments = name.rsplit(".", 5)
    kind = segments.pop() if segments[-1] in ("weight", "bias") and len(segments) > 1 else None
    found = _key(segments)
    if found is None and len(segments) > 2 and (segments[-2] in _ADAPTED or segments[-2] in _WAYS):
        found = _key(segments[:-1])
    if found is None or kind != "bias":
        return found
    if found.part == "up":
        return Key(found.layer, "up_bias")
    return Key(found.layer, "bias", "a bias inside a LoRA")


def _key(segments: list[str]) -> Key | None:
    if len(segments) < 2:
        return None
    *path, last = segments
    if (method := _METHODS.get(last)) is not None:
        return Key(".".join(path), last, method)
    if (part := _ADAPTED.get(last) or _PLAIN.get(last)) is not None:
        holder = path[-1]
        if part == "alpha" and len(path) > 1 and (holder in _HOLDERS or holder.endswith("_lora")):
            return Key(_layer_of(path), part)
        return Key(".".join(path), part)
    if (part := _WAYS.get(last)) is None or len(path) < 2:
        return None
    if path[-1] in _HOLDERS or path[-1].endswith(("_lora", "_lora1", "_lora2")):
        return Key(_layer_of(path), part)
    return None


def _layer_of(path: list[str]) -> str:
    """Layer whose LoRA `path` holds: `attn.processor.to_q_lora` belongs to `attn.to_q`."""
    *before, holder = path
    if holder in _HOLDERS:
        return ".".join(before)
    if before and before[-1] == "processor":
        before.pop()
    return ".".join((*before, holder.removesuffix("_lora")))


def is_of_text_encoder(name: str) -> bool:
    """Whether a tensor belongs to a text encoder."""
    return name.removeprefix("base_model.model.").startswith(_TEXT)


def embedding_of(name: str) -> str | None:
    """Name of the textual inversion embedding that a tensor belongs to; None for a tensor of none."""
    first, *rest = name.split(".", 2)
    return rest[0] if first == "bundle_emb" and len(rest) == 2 else None


def names_of(layer: str) -> Iterator[tuple[str, int | None]]:
    """Names by which the table may know a layer, likeliest first: without trainers' prefixes, dots as underscores, and
    each of its numbers in turn as the number of a block (`#`).
    """
    seen = set()
    for path in islice(without_prefixes(layer), PREFIXES_MOST):
        name = path.replace(".", "_")
        if name not in seen:
            seen.add(name)
            yield name, None
            yield from _blocks(name)


def without_prefixes(layer: str) -> Iterator[str]:
    """The layer, then the layer with one more prefix removed, and so on."""
    yield layer
    while True:
        prefix = next((one for one in _PREFIXES if layer.startswith(one)), None)
        if prefix is None or (prefix == "transformer_" and layer.startswith("transformer_blocks")):
            return
        layer = layer[len(prefix) :]
        yield layer


def _blocks(name: str) -> Iterator[tuple[str, int | None]]:
    """The name with each of its numbers as the block; a number of more than four digits is no block."""
    pieces, at = name.split("_"), 0
    found = 0
    for piece in pieces:
        if piece and len(piece) < 5 and _DIGITS.issuperset(piece):
            yield f"{name[:at]}#{name[at + len(piece) :]}", int(piece)
            found += 1
            if found == NUMBERS_MOST:
                return
        at += len(piece) + 1
