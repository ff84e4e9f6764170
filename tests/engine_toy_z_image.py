"""Z-Image with random weights at toy width, through mflux's own classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.engine_toy import save_toy_tokenizer

WIDTH = 192


def parts() -> dict[str, Any]:
    """Transformer, text encoder and VAE, each of mflux's class."""
    from mflux.models.common.vae.block_decoder import VAEBlockDecoder
    from mflux.models.z_image.model.z_image_text_encoder.text_encoder import TextEncoder
    from mflux.models.z_image.model.z_image_transformer.transformer import ZImageTransformer
    from mflux.models.z_image.model.z_image_vae.common.unet_mid_block import UNetMidBlock
    from mflux.models.z_image.model.z_image_vae.decoder import conv_in as d_in
    from mflux.models.z_image.model.z_image_vae.decoder import conv_norm_out as d_norm
    from mflux.models.z_image.model.z_image_vae.decoder import conv_out as d_out
    from mflux.models.z_image.model.z_image_vae.decoder import decoder, up_decoder_block
    from mflux.models.z_image.model.z_image_vae.encoder import conv_in as e_in
    from mflux.models.z_image.model.z_image_vae.encoder import conv_norm_out as e_norm
    from mflux.models.z_image.model.z_image_vae.encoder import conv_out as e_out
    from mflux.models.z_image.model.z_image_vae.encoder import down_encoder_block, encoder
    from mflux.models.z_image.model.z_image_vae.vae import VAE
    from mlx import nn

    narrow = 64

    class Encoder(encoder.Encoder):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.conv_in = e_in.ConvIn(3, narrow)
            self.down_blocks = [
                down_encoder_block.DownEncoderBlock(narrow, narrow, num_layers=1, add_downsample=i < 3)
                for i in range(4)
            ]
            self.mid_block = UNetMidBlock(narrow)
            self.conv_norm_out = e_norm.ConvNormOut(narrow, 32)
            self.conv_out = e_out.ConvOut(narrow, 32)

    class Decoder(decoder.Decoder):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.conv_in = d_in.ConvIn(16, narrow)
            self.mid_block = UNetMidBlock(narrow)
            self.up_blocks = [
                up_decoder_block.UpDecoderBlock(narrow, narrow, num_layers=1, add_upsample=i < 3) for i in range(4)
            ]
            self.conv_norm_out = d_norm.ConvNormOut(narrow)
            self.conv_out = d_out.ConvOut(narrow, 3)

    vae = VAE.__new__(VAE)
    nn.Module.__init__(vae)
    vae.encoder, vae.decoder = Encoder(), Decoder()
    vae.decode_mode = VAEBlockDecoder.LEGACY
    return {
        "vae": vae,
        "transformer": ZImageTransformer(
            dim=WIDTH, n_layers=1, n_refiner_layers=1, n_heads=6, cap_feat_dim=64, axes_dims=[8, 12, 12]
        ),
        "text_encoder": TextEncoder(320, 64, 2, 2, 1, 64, 32),
    }


@contextmanager
def toy_sized() -> Iterator[None]:
    """mflux builds Z-Image at toy width."""
    from mflux.models.z_image.z_image_initializer import ZImageInitializer

    def build(model: Any) -> None:
        for name, part in parts().items():
            setattr(model, name, part)

    with mock.patch.object(ZImageInitializer, "_init_models", staticmethod(build)):
        yield


def save_toy_z_image(folder: Path) -> None:
    """Build the parts with random weights and save them as mflux does."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    import mlx.core as mx
    from mflux.models.common.weights.saving.model_saver import ModelSaver
    from mflux.models.z_image.weights.z_image_weight_definition import ZImageWeightDefinition

    mx.random.seed(1)
    model = type("Parts", (), parts())
    ModelSaver.save_model(model, None, str(folder), ZImageWeightDefinition)
    save_toy_tokenizer(folder / "tokenizer")


def save_toy_lora(file: Path, rank: int = 4) -> None:
    """A LoRA of random matrices for one layer that every picture goes through."""
    import mlx.core as mx

    mx.random.seed(2)
    layer = "transformer.layers.0.attention.to_q"
    matrices = {"lora_A": mx.random.normal((rank, WIDTH)), "lora_B": mx.random.normal((WIDTH, rank))}
    mx.save_safetensors(str(file), {f"{layer}.{name}.weight": value for name, value in matrices.items()})
