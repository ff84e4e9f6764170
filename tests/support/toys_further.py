"""FIBO, Iris, Lens, Ming, and the ControlNets of Krea 2 and Qwen-Image-2.1, as the other toys."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import toy_parts, toys
from tests.support.engine_toy import save_toy_tokenizer
from tests.support.toy_parts import QWEN3, QWEN21, flux2_vae, qwen_vae
from tests.support.toys import Toy
from tests.support.toys_pictures import narrowed, shrunk

_AT = "mflux.models"

# ---- FIBO ------------------------------------------------------------------------------------------

_FIBO_TRANSFORMER = f"{_AT}.fibo.model.fibo_transformer.transformer:FiboTransformer"
_FIBO = {3072: 64, 6144: 128, 9216: 192, 12288: 128, 15360: 192, 18432: 384, 4096: 128, 2048: 64, 1536: 32, 128: 32}
_LAYERS = 46
"""mflux fills the text encoder's layers up to so many."""


def fibo() -> dict[str, Any]:
    from mflux.models.fibo.model.fibo_text_encoder import SmolLM3_3B_TextEncoder
    from mflux.models.fibo.model.fibo_transformer import FiboTransformer
    from mflux.models.fibo.model.fibo_transformer.text_projection import BriaFiboTextProjection
    from mflux.models.fibo.model.fibo_vae.wan_2_2_vae import Wan2_2_VAE

    transformer = FiboTransformer(num_layers=1, num_single_layers=1)
    transformer.caption_projection = [BriaFiboTextProjection() for _ in range(_LAYERS)]
    transformer.pos_embed.axes_dim = [8, 12, 12]
    return {
        "vae": Wan2_2_VAE(),
        "transformer": shrunk(transformer, _FIBO, num_heads=2, head_dim=32, inner_dim=64, dim=64, embedding_dim=64),
        "text_encoder": SmolLM3_3B_TextEncoder(320, 64, 64, 2, 2, 1, 512),
    }


def _fibo_toy(name: str) -> Toy:
    vae = f"{_AT}.fibo.model.fibo_vae.wan_2_2_vae:Wan2_2_VAE"
    return Toy(
        name,
        f"{_AT}.fibo.fibo_initializer:FIBOInitializer",
        f"{_AT}.fibo.weights.fibo_weight_definition:FIBOWeightDefinition",
        fibo,
        changed=((vae, "ENCODER_BASE_DIM", 8), (vae, "DECODER_BASE_DIM", 8), (vae, "NUM_RES_BLOCKS", 1)),
        remade=tuple(
            (_FIBO_TRANSFORMER, f"_apply_{kind}_transformer_block", partial(narrowed, {1536: 32}))
            for kind in ("joint", "single")
        ),
    )


# ---- Iris ------------------------------------------------------------------------------------------


def iris() -> dict[str, Any]:
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
    from mflux.models.iris.model.iris_transformer.iris_transformer import IrisTransformer

    return {
        "transformer": IrisTransformer(
            hidden_size=64,
            depth=2,
            dual_depth=1,
            num_heads=2,
            num_kv_heads=1,
            text_len=64,
            text_dim=64,
            text_num_layers=2,
            text_layer_num_heads=2,
            pixel_depth=1,
            pixel_attn_hidden_size=64,
            pixel_num_heads=2,
        ),
        "text_encoder": Qwen3TextEncoder(**QWEN3, num_hidden_layers=2),
    }


def _iris_toy(name: str, **more: Any) -> Toy:
    encoder = f"{_AT}.iris.model.iris_text_encoder.prompt_encoder:IrisPromptEncoder"
    return Toy(
        name,
        f"{_AT}.iris.iris_initializer:IrisInitializer",
        f"{_AT}.iris.weights.iris_weight_definition:IrisWeightDefinition",
        iris,
        changed=((encoder, "HIDDEN_LAYERS", (1, 2)), (encoder, "MAX_LENGTH", 64), (encoder, "PREFIX", "<")),
        **more,
    )


# ---- Lens ------------------------------------------------------------------------------------------

_GPT_OSS = {
    "num_hidden_layers": 2,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 64,
    "head_dim": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "sliding_window": 8,
    "quantization": {"group_size": 64, "bits": 8},
}


def save_lens(folder: Path) -> None:
    """As the three repositories have them, after the VAE was saved."""
    import mlx.core as mx
    from mflux.models.common_models.gpt_oss.gpt_oss import Model, ModelArgs
    from mflux.models.lens.model.transformer.lens_transformer import LensTransformer
    from mlx import nn
    from mlx.utils import tree_flatten

    encoder = Model(ModelArgs.from_dict(_GPT_OSS))
    nn.quantize(encoder, **_GPT_OSS["quantization"])
    save_toy_tokenizer(folder / "encoder")
    (folder / "encoder" / "config.json").write_text(json.dumps(_GPT_OSS))
    transformer = folder / "diffusion_models" / "lens_turbo_bf16.safetensors"
    transformer.parent.mkdir()
    for file, model in ((folder / "encoder" / "model.safetensors", encoder), (transformer, LensTransformer())):
        mx.save_safetensors(str(file), dict(tree_flatten(model.parameters())))
    (folder / "klein").mkdir()
    (folder / "vae").rename(folder / "klein" / "vae")


_LENS_ENCODER = f"{_AT}.lens.model.text_encoder.lens_gpt_oss_encoder"
_LENS = Toy(
    "lens-turbo",
    None,
    f"{_AT}.flux2.weights.flux2_weight_definition:Flux2KleinWeightDefinition",
    lambda: {"vae": flux2_vae()},
    tokenizers=(),
    changed=(
        (f"{_AT}.lens.variants.txt2img.lens_image", "Flux2VAE", flux2_vae),
        (
            f"{_AT}.lens.model.transformer.lens_transformer:LensTransformer.__init__",
            "__defaults__",
            (2, 128, 32, 1, 64, 3, 64, 2),
        ),
        (f"{_LENS_ENCODER}:capture_hidden_states", "__defaults__", ((0, 1),)),
        (_LENS_ENCODER, "render_lens_chat", "<{}>".format),
        (_LENS_ENCODER, "LENS_TXT_OFFSET", 1),
    ),
    more=save_lens,
    also=("encoder", "klein"),
)

# ---- Ming ------------------------------------------------------------------------------------------

_MING = f"{_AT}.ming_image.model"
_LING = {
    "HIDDEN_SIZE": 64,
    "NUM_LAYERS": 2,
    "NUM_HEADS": 1,
    "NUM_KV_HEADS": 1,
    "VOCAB_SIZE": 320,
    "DENSE_INTERMEDIATE": 64,
    "NUM_EXPERTS": 8,
    "TOP_K": 2,
    "N_GROUP": 2,
    "TOPK_GROUP": 1,
    "MOE_INTERMEDIATE": 64,
}
_CONNECTOR = {"HIDDEN_SIZE": 64, "NUM_LAYERS": 1, "NUM_HEADS": 2, "NUM_KV_HEADS": 1, "HEAD_DIM": 32, "INTERMEDIATE": 64}
_HEADS = {
    "HIDDEN_SIZE": 64,
    "NUM_LAYERS": 2,
    "CONNECTOR_SIZE": 64,
    "IMAGE_START_ID": 300,
    "IMAGE_PATCH_ID": 301,
    "IMAGE_END_ID": 302,
    "QUERY_GRID": 2,
    "DIRECTVLM_LAYERS": (0, 1, 2),
    "CAP_FEAT_DIM": 64,
    "DIT_DIM": 192,
}


def ming() -> dict[str, Any]:
    from mflux.models.ming_image import ming_image_initializer as m

    return {
        "text_encoder": m.LingMoeEncoder(),
        "connector": m.MingConnector(),
        "heads": m.MingHeads(),
        "transformer": m.MingTransformer(),
        "vae": m.MingVAE(),
    }


def narrow_ming_vae(vae: Any) -> None:
    """In the place of its initialiser."""
    from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE

    QwenVAE.__init__(vae)
    narrow = qwen_vae(channels=4)
    vae.encoder, vae.decoder = narrow.encoder, narrow.decoder


_MING_TOY = Toy(
    "ming-image",
    None,
    f"{_AT}.ming_image.weights.ming_image_weight_definition:MingImageWeightDefinition",
    ming,
    tokenizers=("mllm",),
    changed=(
        *((f"{_MING}.ming_text_encoder.ling_moe_encoder", name, value) for name, value in _LING.items()),
        *((f"{_MING}.ming_text_encoder.ming_connector", name, value) for name, value in _CONNECTOR.items()),
        *((f"{_MING}.ming_text_encoder.ming_condition_encoder", name, value) for name, value in _HEADS.items()),
        (f"{_AT}.ming_image.variants.ming_image", "PROMPT_TEMPLATE", "{prompt}"),
        (f"{_MING}.ming_vae.ming_vae:MingVAE", "__init__", narrow_ming_vae),
        (
            f"{_MING}.ming_transformer.ming_transformer:MingTransformer.__init__",
            "__defaults__",
            (2, 16, 192, 1, 1, 6, 1e-5, 64, 256.0, 1000.0, (8, 12, 12), (512, 64, 64)),
        ),
    ),
)

# ---- ControlNets -----------------------------------------------------------------------------------


def save_krea2_control(folder: Path) -> None:
    """As its own repository has it."""
    import mlx.core as mx
    from mflux.models.krea2 import Krea2Initializer

    width = 128
    shapes = {"first.weight": (width, 2 * 64), "first.bias": (width,)}
    block = toy_parts.krea2()["transformer"].blocks[0]
    for target in Krea2Initializer._CONTROL_TARGETS:
        part, name = target.split(".")
        out, into = getattr(getattr(block, part), name).weight.shape
        shapes |= {f"blocks.0.{target}.A": (4, into), f"blocks.0.{target}.B": (out, 4)}
    (folder / "controlnet").mkdir()
    arrays = {name: mx.random.normal(shape) * 0.2 for name, shape in shapes.items()}
    mx.save_safetensors(str(folder / "controlnet" / "depth.safetensors"), arrays)


def qwen21_controlled() -> dict[str, Any]:
    from mflux.models.qwen21.variants.controlnet.qwen_image21_controlnet_transformer import QwenImage21ControlNet

    return {**toy_parts.qwen21(), "controlnet": QwenImage21ControlNet(QWEN21["transformer"])}


_KREA2 = next(toy for toy in toys.TOYS if toy.name == "krea-2-raw")
_QWEN21 = next(toy for toy in toys.TOYS if toy.name == "qwen-image-2.1")
TOYS = (
    _fibo_toy("fibo"),
    _fibo_toy("fibo-edit"),
    _iris_toy("iris-3b"),
    _iris_toy("iris-3b-base"),
    _LENS,
    _MING_TOY,
    replace(_KREA2, name="krea-2-controlnet-depth", more=save_krea2_control, also=("controlnet",)),
    replace(
        _QWEN21,
        name="qwen-image-2.1-turbo-controlnet-canny",
        definition=f"{_AT}.qwen21.weights.qwen_image21_controlnet_weight_definition:QwenImage21ControlnetWeightDefinition",
        parts=qwen21_controlled,
        also=("controlnet",),
    ),
)
