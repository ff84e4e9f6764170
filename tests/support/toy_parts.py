"""The parts of model families, each of mflux's class, with random weights at toy width."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.engine_toy import TEXT_ENCODER, TRANSFORMER, VAE

QWEN3 = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "head_dim": 32,
}
VISION = {
    "depth": 1,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}


def flux2_vae() -> Any:
    """FLUX.2's, with the geometry of the toy of that family."""
    from engine.pipelines.flux2_tiny import TinyVAE

    return TinyVAE(VAE)


def flux2() -> dict[str, Any]:
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
    from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer

    from engine.pipelines.flux2_tiny import TinyVAE

    class Encoder(Qwen3TextEncoder):  # type: ignore[misc]
        def get_prompt_embeds(self, input_ids: Any, attention_mask: Any, hidden_state_layers: Any) -> Any:
            return super().get_prompt_embeds(input_ids, attention_mask, hidden_state_layers=(1, 2, 3))

    return {
        "vae": TinyVAE({**VAE, "block_out_channels": (8, 8, 16, 32)}),
        "transformer": Flux2Transformer(**TRANSFORMER),
        "text_encoder": Encoder(**TEXT_ENCODER),
    }


def qwen_vae(narrow: int = 32, channels: int = 3) -> Any:
    """Qwen-Image's."""
    from mflux.models.qwen.model.qwen_vae import qwen_image_decoder_3d as d
    from mflux.models.qwen.model.qwen_vae import qwen_image_encoder_3d as e
    from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE
    from mlx import nn

    class Encoder(e.QwenImageEncoder3D):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            modes = ("downsample2d", "downsample2d", "downsample3d", None)
            self.conv_in = e.QwenImageCausalConv3D(channels, narrow, 3, 1, 1)
            self.down_blocks = [
                e.QwenImageDownBlock3D(narrow, narrow, num_res_blocks=1, downsample_mode=mode) for mode in modes
            ]
            self.mid_block = e.QwenImageMidBlock3D(narrow, num_layers=1)
            self.norm_out = e.QwenImageRMSNorm(narrow, images=False)
            self.conv_out = e.QwenImageCausalConv3D(narrow, 32, 3, 1, 1)

    class Decoder(d.QwenImageDecoder3D):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            half, quarter, eighth = narrow // 2, narrow // 4, narrow // 8
            self.conv_in = d.QwenImageCausalConv3D(16, narrow, 3, 1, 1)
            self.mid_block = d.QwenImageMidBlock3D(narrow, num_layers=1)
            for place, before, after, mode in (
                (0, narrow, narrow, "upsample3d"),
                (1, half, half, "upsample3d"),
                (2, quarter, quarter, "upsample2d"),
                (3, eighth, eighth, None),
            ):
                block = d.QwenImageUpBlock3D(before, after, num_res_blocks=1, upsample_mode=mode)
                setattr(self, f"up_block{place}", block)
            self.norm_out = d.QwenImageRMSNorm(eighth, images=False)
            self.conv_out = d.QwenImageCausalConv3D(eighth, channels, 3, 1, 1)

    vae = QwenVAE()
    vae.encoder, vae.decoder = Encoder(), Decoder()
    return vae


def flux3() -> dict[str, Any]:
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
    from mflux.models.flux3.model.flux3_transformer.flux3_transformer import Flux3Transformer

    return {
        "vae": flux2_vae(),
        "transformer": Flux3Transformer(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=128,
            timestep_channels=64,
            axes_dims_rope=(8, 8, 8, 8),
        ),
        "text_encoder": Qwen3TextEncoder(**QWEN3, num_hidden_layers=2),
    }


def krea2() -> dict[str, Any]:
    from mflux.models.krea2.model.krea2_text_encoder.text_encoder import Krea2TextEncoder
    from mflux.models.krea2.model.krea2_transformer.transformer import Krea2Transformer

    class Encoder(Krea2TextEncoder):  # type: ignore[misc]
        def get_prompt_embeds(self, ids: Any, mask: Any) -> Any:
            return super().get_prompt_embeds(ids, mask, tap_layers=(1, 2))

    return {
        "vae": qwen_vae(),
        "transformer": Krea2Transformer(
            features=128,
            tdim=64,
            txtdim=64,
            heads=2,
            kvheads=1,
            layers=1,
            txtlayers=2,
            txtheads=2,
            txtkvheads=2,
            multiplier=2,
        ),
        "text_encoder": Encoder(**QWEN3, num_hidden_layers=2),
    }


def ernie() -> dict[str, Any]:
    from mflux.models.ernie_image.model.ernie_text_encoder.text_encoder import ErnieMistralTextEncoder
    from mflux.models.ernie_image.model.ernie_transformer.transformer import ErnieTransformer

    return {
        "vae": flux2_vae(),
        "transformer": ErnieTransformer(
            hidden_size=64,
            num_attention_heads=2,
            num_layers=1,
            ffn_hidden_size=64,
            text_in_dim=64,
            rope_axes_dim=[8, 12, 12],
        ),
        "text_encoder": ErnieMistralTextEncoder(**QWEN3, num_hidden_layers=2),
    }


def moss() -> dict[str, Any]:
    from mflux.models.common_models.qwen3_5 import Qwen35TextModel
    from mflux.models.moss_image.model.moss_image_transformer.moss_image_transformer import MOSSImageTransformer

    return {
        "vae": flux2_vae(),
        "transformer": MOSSImageTransformer(
            dim=64, ffn_dim=64, num_heads=2, num_layers=2, text_dim=64, freq_dim=64, latent_channels=128
        ),
        "text_encoder": Qwen35TextModel(
            **QWEN3,
            num_hidden_layers=2,
            full_attention_interval=2,
            linear_num_key_heads=1,
            linear_num_value_heads=2,
            linear_key_head_dim=32,
            linear_value_head_dim=32,
        ),
    }


def boogu() -> dict[str, Any]:
    """Its VAE is Z-Image's, which has the same face and can be built narrow."""
    from mflux.models.boogu.model.boogu_text_encoder import BooguTextEncoder
    from mflux.models.boogu.model.boogu_transformer.boogu_transformer import BooguImageTransformer
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder

    from tests.support.toys_pictures import z_image_vae

    encoder = BooguTextEncoder.__new__(BooguTextEncoder)
    Qwen3TextEncoder.__init__(encoder, **QWEN3, num_hidden_layers=2)
    return {
        "vae": z_image_vae(),
        "transformer": BooguImageTransformer(
            hidden_size=64,
            num_layers=2,
            num_double_stream_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=64,
            axes_dim_rope=(8, 12, 12),
            instruction_feat_dim=64,
        ),
        "text_encoder": encoder,
    }


def anima() -> dict[str, Any]:
    from mflux.models.anima.model.anima_transformer.anima_transformer import AnimaTransformer
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder

    return {
        "vae": qwen_vae(),
        "transformer": AnimaTransformer(dim=64, num_blocks=1, num_heads=2, context_dim=64, adaln_lora_dim=64),
        "text_encoder": Qwen3TextEncoder(**QWEN3, num_hidden_layers=2),
    }


def ideogram4() -> dict[str, Any]:
    """Its weights are stored at 8 bits, and zero until they are loaded."""
    import mlx.core as mx
    from mflux.models.ideogram4.model.ideogram4_text_encoder import Qwen3TextEncoder
    from mflux.models.ideogram4.model.ideogram4_transformer import Ideogram4Transformer
    from mflux.models.ideogram4.model.ideogram4_transformer.config import Ideogram4Config
    from mflux.models.ideogram4.model.ideogram4_transformer.fp8_linear import Fp8Linear

    config = Ideogram4Config(
        emb_dim=64,
        num_layers=1,
        num_heads=2,
        intermediate_size=64,
        adanln_dim=64,
        llm_features_dim=128,
        mrope_section=(8, 4, 4),
    )

    class Encoder(Qwen3TextEncoder):  # type: ignore[misc]
        def get_prompt_embeds(self, *given: Any) -> Any:
            return super().get_prompt_embeds(*given, tap_layers=(0, 1))

    def filled(module: Any) -> Any:
        for _, layer in module.named_modules():
            if isinstance(layer, Fp8Linear):
                layer.weight = mx.to_fp8(mx.random.normal(layer.weight.shape) / layer.in_features**0.5)
        return module

    return {
        "vae": flux2_vae(),
        "conditional_transformer": filled(Ideogram4Transformer(config)),
        "unconditional_transformer": filled(Ideogram4Transformer(config)),
        "text_encoder": filled(Encoder(**QWEN3, num_hidden_layers=2)),
    }


def fibo2() -> dict[str, Any]:
    from mflux.models.fibo2.model.fibo2_text_encoder.fibo2_text_encoder import Fibo2TextEncoder
    from mflux.models.fibo2.model.fibo2_transformer.fibo2_transformer import Fibo2Transformer

    text = {
        **Fibo2TextEncoder.TEXT_CONFIG,
        **QWEN3,
        "num_hidden_layers": 2,
        "rope_scaling": {"mrope_section": [8, 4, 4]},
    }
    return {
        "vae": flux2_vae(),
        "transformer": Fibo2Transformer(
            dim=64,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            cap_feat_dim=192,
            injection_layer_ids=(0,),
            perceiver_num_layers=1,
            axes_dims=(8, 12, 12),
        ),
        "text_encoder": Fibo2TextEncoder(text, VISION),
    }


def save_qwen_images(folder: Path) -> None:
    """What a processor of Qwen3-VL reads besides its tokenizer."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    Qwen2VLImageProcessorPil(patch_size=16, min_pixels=1024, max_pixels=1024).save_pretrained(folder / "processor")


def save_t5(folder: Path) -> None:
    """A tokenizer of T5's kind: a token a letter."""
    from transformers import T5Tokenizer

    letters = [(letter, -3.0) for letter in map(chr, range(33, 127))]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer_2")


QWEN21 = {
    "vae": {
        "base_dim": 8,
        "decoder_base_dim": 8,
        "dim_mult": [1, 1, 1, 1, 1],
        "num_res_blocks": 1,
        "is_residual": True,
        "patch_size": None,
    },
    "transformer": {
        "in_channels": 64,
        "out_channels": 64,
        "num_layers": 1,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "context_in_dim": 64,
        "mlp_ratio": 3,
        "axes_dims_rope": [8, 12, 12],
    },
    "text_encoder": {
        "text_config": {
            **QWEN3,
            "num_hidden_layers": 2,
            "max_position_embeddings": 512,
            "rope_theta": 5000000.0,
            "rope_scaling": {"mrope_section": [8, 4, 4]},
            "attention_bias": False,
            "rms_norm_eps": 1e-6,
        },
        "vision_config": VISION,
        "image_token_id": 257,
    },
}


def qwen21() -> dict[str, Any]:
    from mflux.models.qwen21.model.qwen21_text_encoder.text_encoder import QwenImage21TextEncoder
    from mflux.models.qwen21.model.qwen21_transformer.qwen_image21_transformer import QwenImage21Transformer
    from mflux.models.qwen21.model.qwen21_vae.vae import QwenImage21VAE

    return {
        "vae": QwenImage21VAE(QWEN21["vae"]),
        "transformer": QwenImage21Transformer(QWEN21["transformer"]),
        "text_encoder": QwenImage21TextEncoder(QWEN21["text_encoder"]),
    }


def save_qwen21(folder: Path) -> None:
    """The widths, which mflux reads."""
    save_qwen_images(folder)
    for part, config in QWEN21.items():
        (folder / part / "config.json").write_text(json.dumps(config))
