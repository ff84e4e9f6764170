"""Model families with random weights at toy width, through mflux's own classes: real code, no meaning."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any
from unittest import mock

from tests.engine_toy import VAE, save_toy_tokenizer

CHAT_TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
QWEN3 = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "head_dim": 32,
}


@dataclass(frozen=True)
class Toy:
    """`name` is a row's; `initializer` and `definition` are mflux's, as module:class; `parts` builds what it would."""

    name: str
    initializer: str
    definition: str
    parts: Callable[[], dict[str, Any]]
    tokenizer: str = "tokenizer"
    changed: tuple[tuple[str, str, Any], ...] = ()
    """What of mflux has another value: module or module:class, attribute, value."""
    lora: tuple[str, int] | None = None
    """A layer that every picture goes through, and its width in and out."""
    usual: dict[str, Any] = field(default_factory=dict)
    """How it is drawn with where nothing else is said."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """mflux builds this family at toy width."""

        def build(model: Any, *_: Any) -> None:
            for name, part in self.parts().items():
                setattr(model, name, part)

        with ExitStack() as stack:
            for place, attribute, value in self.changed:
                stack.enter_context(mock.patch.object(found(place), attribute, value))
            stack.enter_context(mock.patch.object(found(self.initializer), "_init_models", staticmethod(build)))
            yield

    def save(self, folder: Path) -> None:
        """Random weights, saved as mflux does."""
        os.environ.setdefault("TQDM_DISABLE", "1")
        import mlx.core as mx
        from mflux.models.common.weights.saving.model_saver import ModelSaver

        mx.random.seed(1)
        ModelSaver.save_model(type("Parts", (), self.parts()), None, str(folder), found(self.definition))
        save_toy_tokenizer(folder / self.tokenizer, CHAT_TEMPLATE)

    def save_lora(self, file: Path, rank: int = 4) -> None:
        """Random matrices for `lora`."""
        import mlx.core as mx

        assert self.lora is not None
        layer, width = self.lora
        mx.random.seed(2)
        matrices = {"lora_A": mx.random.normal((rank, width)), "lora_B": mx.random.normal((width, rank))}
        mx.save_safetensors(str(file), {f"{layer}.{name}.weight": value for name, value in matrices.items()})


def found(place: str) -> Any:
    module, _, names = place.partition(":")
    return reduce(getattr, filter(None, names.split(".")), importlib.import_module(module))


def flux2_vae() -> Any:
    """FLUX.2's, with the geometry of the toy of that family."""
    from engine.families.flux2_tiny import TinyVAE

    return TinyVAE(VAE)


def qwen_vae(narrow: int = 32) -> Any:
    """Qwen-Image's."""
    from mflux.models.qwen.model.qwen_vae import qwen_image_decoder_3d as d
    from mflux.models.qwen.model.qwen_vae import qwen_image_encoder_3d as e
    from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE
    from mlx import nn

    class Encoder(e.QwenImageEncoder3D):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            modes = ("downsample2d", "downsample2d", "downsample3d", None)
            self.conv_in = e.QwenImageCausalConv3D(3, narrow, 3, 1, 1)
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
            self.conv_out = d.QwenImageCausalConv3D(eighth, 3, 3, 1, 1)

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


_AT = "mflux.models"
_MOSS_DRAWS = f"{_AT}.moss_image:MOSSImage.generate_image"
_ERNIE_BATCH = f"{_AT}.ernie_image.model.ernie_text_encoder.prompt_encoder:ErniePromptEncoder.build_text_batch"
TOYS = {
    "flux3": Toy(
        "flux3-klein",
        f"{_AT}.flux3.flux3_initializer:Flux3Initializer",
        f"{_AT}.flux3.weights.flux3_weight_definition:Flux3KleinWeightDefinition",
        flux3,
        tokenizer="text_encoder",
        changed=((f"{_AT}.flux3.model.flux3_text_encoder.prompt_encoder:Flux3PromptEncoder", "OUTPUT_LAYERS", (1, 2)),),
        lora=("transformer.single_transformer_blocks.0.attn.to_q", 64),
    ),
    "krea2": Toy(
        "krea-2-raw",
        f"{_AT}.krea2:Krea2Initializer",
        f"{_AT}.krea2.weights.krea2_weight_definition:Krea2WeightDefinition",
        krea2,
        changed=((f"{_AT}.krea2.weights.krea2_weight_definition", "KREA2_TEMPLATE", "{}"),),
        lora=("transformer.blocks.0.attn.wq", 128),
    ),
    "ernie": Toy(
        "ernie-image",
        f"{_AT}.ernie_image:ErnieImageInitializer",
        f"{_AT}.ernie_image.weights.ernie_weight_definition:ErnieWeightDefinition",
        ernie,
        changed=((_ERNIE_BATCH, "__defaults__", (None, None, 64)),),
        lora=("transformer.layers.0.self_attention.to_q", 64),
    ),
    "moss": Toy(
        "moss-image",
        f"{_AT}.moss_image:MOSSImageInitializer",
        f"{_AT}.moss_image.weights.moss_image_weight_definition:MOSSImageWeightDefinition",
        moss,
        changed=(
            (f"{_AT}.moss_image:MOSSImage.generate_image", "__defaults__", (50, 1024, 1024, 3.0, None, (1,), None)),
        ),
        lora=("transformer.layers.0.proj.q", 64),
    ),
}
