"""The embedded model: FLUX.2 Klein with small parts, built from the sizes in its own config files.

Imports MLX and mflux, so only the engine's child process may import it.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mflux.models.common.compute_precision import ComputePrecision
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.flux2.flux2_initializer import Flux2Initializer
from mflux.models.flux2.model.flux2_text_encoder.prompt_encoder import Flux2PromptEncoder
from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_vae.decoder.decoder import Flux2Decoder
from mflux.models.flux2.model.flux2_vae.encoder.encoder import Flux2Encoder
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mflux.models.flux2.variants.txt2img.flux2_klein import Flux2Klein
from mlx import nn

from engine.embedded.reading import read
from engine.embedded.style import between, centre_position, style_numbers, with_style
from engine.pipelines.common.base import key_of
from engine.pipelines.common.loading import load_by_layer
from engine.protocol import Generate

NATIVE_PX = 128
NATIVE_STEPS = 4
TEXT_TOKENS = 24
TEXT_LAYERS = (1, 2, 3)

_TRANSFORMER_KEYS = (
    "patch_size",
    "in_channels",
    "num_layers",
    "num_single_layers",
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "timestep_guidance_channels",
    "mlp_ratio",
    "rope_theta",
    "guidance_embeds",
)
_TEXT_ENCODER_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "head_dim",
    "attention_bias",
)


def _read_config(model_path: Path, part: str) -> dict[str, Any]:
    return json.loads((model_path / part / "config.json").read_text(encoding="utf-8"))


def _model_config(model_path: Path) -> ModelConfig:
    transformer = _read_config(model_path, "transformer")
    text_encoder = _read_config(model_path, "text_encoder")
    rope_theta = text_encoder.get("rope_theta") or text_encoder["rope_parameters"]["rope_theta"]
    return ModelConfig(
        priority=1000,
        aliases=["flux2-tiny"],
        model_name="flux2-tiny",
        base_model=None,
        controlnet_model=None,
        custom_transformer_model=None,
        num_train_steps=1000,
        max_sequence_length=TEXT_TOKENS,
        supports_guidance=True,
        requires_sigma_shift=True,
        transformer_overrides={key: transformer[key] for key in _TRANSFORMER_KEYS}
        | {"axes_dims_rope": tuple(transformer["axes_dims_rope"])},
        text_encoder_overrides={key: text_encoder[key] for key in _TEXT_ENCODER_KEYS} | {"rope_theta": rope_theta},
    )


class TinyVAE(Flux2VAE):
    """FLUX.2's VAE with the sizes of a config file."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(decoder_block_out_channels=(32,))
        shape = {
            "block_out_channels": tuple(config["block_out_channels"]),
            "layers_per_block": config["layers_per_block"],
            "norm_num_groups": config["norm_num_groups"],
            "mid_block_add_attention": config["mid_block_add_attention"],
        }
        self.encoder = Flux2Encoder(**shape)
        self.decoder = Flux2Decoder(**shape)
        self.decode_mode = VAEBlockDecoder.LEGACY


class Flux2Tiny(Flux2Klein):
    """mflux's pipeline of FLUX.2 Klein with small parts; prompts are encoded up to `TEXT_TOKENS` tokens."""

    def __init__(self, model_path: Path, quantize: int | None = None) -> None:
        nn.Module.__init__(self)
        path = str(model_path)
        Flux2Initializer._init_config(self, _model_config(model_path))
        self.small_text_encoder = False
        self.small_decoder = False
        weights = Flux2Initializer._load_weights(path)
        Flux2Initializer._init_tokenizers(self, path)
        self.vae = TinyVAE(_read_config(model_path, "vae"))
        self.transformer = Flux2Transformer(**self.model_config.transformer_overrides)
        self.text_encoder = Qwen3TextEncoder(**self.model_config.text_encoder_overrides)
        Flux2Initializer._apply_weights(self, weights, quantize)
        self.lora_paths: list[str] = []
        self.lora_scales: list[float] = []
        self.compute_precision = ComputePrecision()

    def encode_prompt(self, prompt: str) -> tuple[mx.array, mx.array]:
        """Embeddings and position ids of one prompt; a blank prompt is a prompt too."""
        return Flux2PromptEncoder.encode_prompt(
            prompt=prompt or " ",
            tokenizer=self.tokenizers["qwen3"],
            text_encoder=self.text_encoder,
            max_sequence_length=TEXT_TOKENS,
            text_encoder_out_layers=TEXT_LAYERS,
        )

    def _encode_prompt_pair(
        self, *, prompt: str, negative_prompt: str | None, guidance: float
    ) -> tuple[mx.array, mx.array, mx.array | None, mx.array | None]:
        embeddings, ids = self.encode_prompt(prompt)
        if negative_prompt is None or guidance is None or guidance <= 1.0:
            return embeddings, ids, None, None
        return embeddings, ids, *self.encode_prompt(negative_prompt)


def known_prompt(plan: Generate) -> tuple[str, tuple[str, ...]]:
    """The part of a plan's prompt that the model knows, and the other words. A mask disables reference images."""
    reading = read(plan.prompt, 0 if plan.mask is not None else len(plan.references))
    return reading.text, reading.unread


def styled_prompt(plan: Generate, image: int) -> str:
    """The prompt with the style of the image's seed, or between seed and subseed. A mask determines the place itself,
    and a reference image everything.
    """
    if plan.references and plan.mask is None:
        return plan.prompt
    numbers = style_numbers(key_of(plan.seeds[image]))
    if plan.subseed_strength > 0:
        numbers = between(numbers, style_numbers(key_of(plan.subseeds[image])), plan.subseed_strength)
    return with_style(plan.prompt, numbers if plan.mask is None else centre_position(numbers))


def build(model_path: Path, *, quantize: int | None = None) -> Flux2Klein:
    """Load the embedded model; on a CPU everything is computed in float32."""
    if mx.default_device() == mx.cpu:
        ModelConfig.precision = mx.float32
    return load_by_layer(lambda: Flux2Tiny(Path(model_path).resolve(), quantize))
