"""FLUX.1, Qwen-Image and Z-Image in all their variants with random weights at toy width, through mflux's own classes.

Their widths are written into the classes: a part is built whole, which costs nothing as long as nobody looks at its
numbers, and gets narrow arrays before anybody does. A width that a method has as a number is exchanged in its code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.support.toy_parts import qwen_vae
from tests.support.toys import Toy

WIDTH, HEADS, HEAD = 64, 2, 32
TOKENS = 32


def shrunk(part: Any, widths: Mapping[int, int], kept: str = "", **numbers: Any) -> Any:
    """The part with random arrays whose sizes go by `widths`; the array named `kept` has its last one as it is.
    `numbers` are attributes that modules get, where they have them.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten

    arrays = []
    for name, value in tree_flatten(part.parameters()):
        shape = [widths.get(size, size) for size in value.shape]
        if kept and name.endswith(kept):
            shape[-1] = value.shape[-1]
        if len(shape) == 1 and name.endswith("weight"):
            arrays.append((name, mx.ones(shape)))
        else:
            arrays.append((name, mx.random.normal(shape) * prod(shape[1:]) ** -0.5))
    part.update(tree_unflatten(arrays))
    for module in part.modules():
        for name, number in numbers.items():
            if hasattr(module, name):
                setattr(module, name, number)
    return part


def narrowed(numbers: Mapping[Any, Any], function: Any) -> Any:
    """The very function, with other numbers in its code."""

    def other(value: Any) -> Any:
        if isinstance(value, slice):
            return slice(other(value.start), other(value.stop), other(value.step))
        if isinstance(value, tuple):
            return numbers.get(value) or tuple(map(other, value))
        return numbers.get(value, value) if isinstance(value, int) else value

    code = function.__code__
    consts = tuple(map(other, code.co_consts))
    made = FunctionType(code.replace(co_consts=consts), function.__globals__, function.__name__, function.__defaults__)
    return made if code.co_varnames[:1] == ("self",) else staticmethod(made)


def vae(whole: Any) -> Any:
    """FLUX.1's or Z-Image's; the normalisation has 32 groups, the attention is quantised in 64."""
    from mlx import nn

    for block in whole.encoder.down_blocks:
        block.resnets[1:] = [nn.Identity() for _ in block.resnets[1:]]
    return shrunk(whole, {512: WIDTH, 256: 32, 128: 32})


# ---- FLUX.1 ----------------------------------------------------------------------------------------

FLUX = {3072: WIDTH, 6144: 2 * WIDTH, 9216: 3 * WIDTH, 12288: 2 * WIDTH, 15360: 3 * WIDTH, 18432: 6 * WIDTH}
FLUX |= {4096: WIDTH, 768: WIDTH, 128: HEAD}
SIGLIP = {1152: WIDTH, 768: WIDTH, 3456: 3 * WIDTH, 4304: 2 * WIDTH}


def transformer(whole: Any) -> Any:
    narrow = shrunk(
        whole, FLUX, kept="x_embedder.weight", num_heads=HEADS, head_dimension=HEAD, dim=WIDTH, embedding_dim=WIDTH
    )
    narrow.pos_embed.axes_dim = [8, 12, 12]
    return narrow


def flux1(geometry: str) -> dict[str, Any]:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS
    from mflux.models.flux import flux_initializer as flux

    config = AVAILABLE_MODELS[geometry]
    t5, clip = flux.T5Encoder(), flux.CLIPEncoder()
    t5.t5_blocks = t5.t5_blocks[:1]
    clip.text_model.encoder.layers = clip.text_model.encoder.layers[:1]
    parts = {
        "vae": vae(flux.VAE()),
        "transformer": transformer(flux.Transformer(config, 1, 1)),
        "t5_text_encoder": shrunk(t5, {4096: WIDTH, 10240: WIDTH, 32128: 320}),
        "clip_text_encoder": shrunk(clip, {768: WIDTH, 3072: WIDTH, 49408: 320}, num_heads=HEADS, head_dimension=HEAD),
    }
    if geometry == "dev-redux":
        parts |= {"image_encoder": flux.SiglipVisionTransformer(), "image_embedder": flux.ReduxEncoder()}
    if config.controlnet_model:
        parts["transformer_controlnet"] = flux.TransformerControlnet(config, 1, 1)
    return parts


def siglip(real: Any) -> Callable[[], Any]:
    def build() -> Any:
        whole = real()
        whole.encoder.layers = whole.encoder.layers[:1]
        return shrunk(whole, SIGLIP, num_heads=HEADS, head_dimension=HEAD)

    return build


def flux1_tokenizers() -> list[Any]:
    """A token a byte, instead of sentencepiece and CLIP's own."""
    from mflux.models.common.tokenizer import LanguageTokenizer
    from mflux.models.common.weights.loading.weight_definition import TokenizerDefinition

    return [
        TokenizerDefinition(name, folder, "Qwen2Tokenizer", encoder_class=LanguageTokenizer, max_length=16)
        for name, folder in (("clip", "tokenizer"), ("t5", "tokenizer_2"))
    ]


_AT = "mflux.models"
_FLUX = f"{_AT}.flux.flux_initializer"
_PARTS = f"{_AT}.flux.model"
_T5 = f"{_PARTS}.flux_text_encoder.t5_encoder.t5_self_attention:T5SelfAttention"
_SIGLIP = f"{_PARTS}.siglip_vision_transformer"
_EMBEDDINGS = f"{_SIGLIP}.siglip_vision_embeddings:SiglipVisionEmbeddings"
_REMADE = (
    (
        f"{_PARTS}.flux_transformer.ada_layer_norm_zero:AdaLayerNormZero",
        "__call__",
        partial(narrowed, {3072: WIDTH}),
    ),
    (_T5, "shape", partial(narrowed, {(1, -1, 64, 64): (1, -1, 64, 1)})),
    (_T5, "un_shape", partial(narrowed, {(1, -1, 4096): (1, -1, WIDTH)})),
    (f"{_AT}.flux.weights.flux_weight_definition:FluxWeightDefinition", "get_tokenizers", lambda _: flux1_tokenizers),
    (
        _FLUX,
        "TransformerControlnet",
        lambda real: (
            lambda model_config, num_transformer_blocks, num_single_transformer_blocks: transformer(
                real(model_config, num_transformer_blocks, num_single_transformer_blocks)
            )
        ),
    ),
    (_FLUX, "SiglipVisionTransformer", siglip),
    (_FLUX, "ReduxEncoder", lambda real: lambda: shrunk(real(), {1152: WIDTH, 12288: WIDTH, 4096: WIDTH})),
    (_EMBEDDINGS, "__call__", partial(narrowed, {1152: WIDTH, 27 * 27: 16})),
    (_EMBEDDINGS, "image_size", lambda _: 56),
    ("mflux.utils.image_util:ImageUtil.preprocess_for_model", "__defaults__", lambda real: ((56, 56), *real[1:])),
    (
        f"{_SIGLIP}.siglip_multi_head_attention_pooling_head:SiglipMultiHeadAttentionPoolingHead",
        "__call__",
        partial(narrowed, {(1, 1, 1152): (1, 1, WIDTH)}),
    ),
)


def _flux1_toy(name: str, geometry: str, definition: str = "FluxWeightDefinition", **more: Any) -> Toy:
    return Toy(
        name,
        f"{_FLUX}:FluxInitializer",
        f"{_AT}.flux.weights.flux_weight_definition:{definition}",
        partial(flux1, geometry),
        remade=_REMADE,
        tokenizers=("tokenizer", "tokenizer_2"),
        tokens=TOKENS,
        lora=("transformer.single_transformer_blocks.0.attn.to_q", WIDTH),
        **more,
    )


# ---- Qwen-Image ------------------------------------------------------------------------------------


def qwen(geometry: str) -> dict[str, Any]:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS
    from mflux.models.qwen.model.qwen_text_encoder.qwen_encoder import QwenEncoder
    from mflux.models.qwen.model.qwen_text_encoder.qwen_encoder_layer import QwenEncoderLayer
    from mflux.models.qwen.model.qwen_text_encoder.qwen_rope import QwenRotaryEmbedding
    from mflux.models.qwen.model.qwen_text_encoder.qwen_text_encoder import QwenTextEncoder
    from mflux.models.qwen.model.qwen_text_encoder.qwen_vision_transformer import VisionTransformer
    from mflux.models.qwen.model.qwen_transformer.qwen_transformer import QwenTransformer

    head = 128  # the rotary embedding's three sections add up to it
    text = QwenTextEncoder()
    text.encoder = QwenEncoder(vocab_size=320, hidden_size=head, num_hidden_layers=0)
    text.encoder.layers = [QwenEncoderLayer(head, 1, 1, head)]
    text.encoder.rotary_emb = QwenRotaryEmbedding(dim=head)
    text.encoder.image_token_id = 257
    if geometry != "qwen-image":
        text.encoder.visual = VisionTransformer(
            embed_dim=WIDTH, depth=1, num_heads=HEADS, mlp_ratio=1.0, hidden_size=head, fullatt_block_indexes=[0]
        )
    overrides = AVAILABLE_MODELS[geometry].transformer_overrides
    return {
        "vae": qwen_vae(),
        "transformer": QwenTransformer(
            num_layers=1, num_attention_heads=1, attention_head_dim=head, joint_attention_dim=head, **overrides
        ),
        "text_encoder": text,
    }


_QWEN_TOKENIZER = f"{_AT}.qwen.tokenizer.qwen_vision_language_tokenizer:QwenVisionLanguageTokenizer"


def shortly(real: Callable[..., None]) -> Callable[..., None]:
    """The initialiser, with a template of which a token a letter does not make hundreds."""

    def initialise(tokenizer: Any, *given: Any, **named: Any) -> None:
        real(tokenizer, *given, **named)
        tokenizer.edit_template = "<" * tokenizer.edit_template_start_idx + "{}"

    return initialise


def _qwen_toy(name: str, geometry: str, **more: Any) -> Toy:
    return Toy(
        name,
        f"{_AT}.qwen.qwen_initializer:QwenImageInitializer",
        f"{_AT}.qwen.weights.qwen_weight_definition:QwenWeightDefinition",
        partial(qwen, geometry),
        tokens=TOKENS,
        lora=("diffusion_model.transformer_blocks.0.attn.to_q", 128),
        **more,
    )


# ---- Z-Image ---------------------------------------------------------------------------------------

Z_WIDTH, Z_HEADS = 192, 6  # what a feed-forward is wide, eight thirds of it, must part in 64
CONTROL = {"control_layers_places": [0], "control_refiner_layers_places": [0], "n_refiner_layers": 1}
CONTROL |= {"dim": Z_WIDTH, "n_heads": Z_HEADS}


def z_image_vae() -> Any:
    from mflux.models.common.vae.block_decoder import VAEBlockDecoder
    from mflux.models.z_image import z_image_initializer as z

    narrow = vae(z.VAE())
    narrow.decode_mode = VAEBlockDecoder.LEGACY
    return narrow


def z_image(controlled: bool = False) -> dict[str, Any]:
    from mflux.models.z_image import z_image_initializer as z

    parts = {
        "vae": z_image_vae(),
        "transformer": z.ZImageTransformer(
            dim=Z_WIDTH, n_layers=1, n_refiner_layers=1, n_heads=Z_HEADS, cap_feat_dim=64, axes_dims=[8, 12, 12]
        ),
        "text_encoder": z.TextEncoder(320, 64, 2, 2, 1, 64, 32),
    }
    if controlled:
        parts["controlnet"] = shrunk(z.ZImageControlNet(z.ZImageControlNetConfig(**CONTROL)), {})
    return parts


def _z_image_toy(name: str, **more: Any) -> Toy:
    controlled = "also" in more
    definition = "z_image_weight_definition:ZImageWeightDefinition"
    if controlled:
        definition = "z_image_controlnet_weight_definition:ZImageControlnetWeightDefinition"
    return Toy(
        name,
        f"{_AT}.z_image.z_image_initializer:ZImageInitializer",
        f"{_AT}.z_image.weights.{definition}",
        partial(z_image, controlled),
        tokens=TOKENS,
        lora=("transformer.layers.0.attention.to_q", Z_WIDTH),
        **more,
    )


def _configured(folder: Path) -> None:
    (folder / "controlnet" / "config.json").write_text(json.dumps(CONTROL))


TOYS = (
    _flux1_toy("flux1-dev", "dev"),
    _flux1_toy("flux1-kontext-dev", "dev-kontext"),
    _flux1_toy("flux1-fill-dev", "dev-fill"),
    _flux1_toy("flux1-depth-dev", "dev-depth"),
    _flux1_toy("flux1-redux-dev", "dev-redux", "FluxReduxSaveDefinition", also=("image_encoder", "image_embedder")),
    _flux1_toy(
        "flux1-schnell-controlnet-canny",
        "schnell-controlnet-canny",
        "FluxControlnetWeightDefinition",
        also=("transformer_controlnet",),
    ),
    _qwen_toy("qwen-image", "qwen-image"),
    _qwen_toy(
        "qwen-image-edit-2511",
        "qwen-image-edit-2511",
        builder="_init_edit_models",
        remade=(
            (_QWEN_TOKENIZER, "tokenize_with_image", partial(narrowed, {384 * 384: 64 * 64})),
            (_QWEN_TOKENIZER, "__init__", shortly),
        ),
    ),
    _z_image_toy("z-image"),
    _z_image_toy("z-image-turbo-controlnet-canny", also=("controlnet",), more=_configured),
)
