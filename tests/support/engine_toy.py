"""A model folder with random weights at toy width, in the layout of the embedded model: real code, no meaning.

Unlike the embedded model it draws at any size, which is what tests of sizes and of the engine need.
"""

import json
import os
from pathlib import Path
from typing import Any

TRANSFORMER: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 192,
    "timestep_guidance_channels": 64,
    "mlp_ratio": 2.0,
    "axes_dims_rope": (8, 8, 8, 8),
    "rope_theta": 2000,
    "guidance_embeds": False,
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "attention_bias": False,
}
VAE: dict[str, Any] = {
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def save_toy_model(folder: Path, **wider: Any) -> None:
    """Build the parts with random weights and save them as mflux does; `wider` changes the transformer's geometry."""
    geometry = TRANSFORMER | wider
    os.environ.setdefault("TQDM_DISABLE", "1")
    import mlx.core as mx
    from mflux.models.common.weights.saving.model_saver import ModelSaver
    from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
    from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
    from mflux.models.flux2.weights.flux2_weight_definition import Flux2KleinWeightDefinition

    from engine.pipelines.flux2_tiny import TinyVAE

    class Parts:
        vae = TinyVAE(VAE)
        transformer = Flux2Transformer(**geometry)
        text_encoder = Qwen3TextEncoder(**TEXT_ENCODER)

    mx.random.seed(1)
    ModelSaver.save_model(Parts, None, str(folder), Flux2KleinWeightDefinition)  # type: ignore[arg-type]
    for part, config in (("transformer", geometry), ("text_encoder", TEXT_ENCODER), ("vae", VAE)):
        (folder / part / "config.json").write_text(json.dumps(config))
    save_toy_tokenizer(folder / "tokenizer")


def save_toy_tokenizer(folder: Path, chat_template: str = CHAT_TEMPLATE) -> None:
    """A token a byte."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2TokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate((*alphabet, "<|endoftext|>", "<|image_pad|>"))}
    tokenizer = Qwen2TokenizerFast(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", padding_side="right")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image_pad|>"]})
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def save_toy_lora(
    file: Path, layer: str = "single_transformer_blocks.0.attn.to_out", rank: int = 4, **wider: Any
) -> None:
    """A LoRA of random matrices for one layer of the toy, by default one that every picture goes through."""
    import mlx.core as mx

    geometry = TRANSFORMER | wider
    width = geometry["attention_head_dim"] * geometry["num_attention_heads"]
    wide = int(width + width * geometry["mlp_ratio"])
    mx.random.seed(2)
    matrices = {"lora_A": mx.random.normal((rank, wide)), "lora_B": mx.random.normal((width, rank))}
    mx.save_safetensors(str(file), {f"transformer.{layer}.{name}.weight": value for name, value in matrices.items()})
