"""Latents at another size, masks of latents, and pixels of decoded ones."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from engine.pipelines.common.finite import NotFinite
from engine.pipelines.stable_diffusion.autoencoder import Autoencoder, resize_latents
from engine.pipelines.stable_diffusion.masks import LatentMask, latent_mask, masked_image_channels

GOLDEN = Path(__file__).parents[2] / "golden" / "stable_diffusion" / "latents.npz"
with np.load(GOLDEN) as read:
    RESIZED = dict(read)


@pytest.mark.parametrize("case", [name for name in RESIZED if name != "latents"])
def test_latents_are_resized_as_torch_resizes_them(case: str) -> None:
    method, antialias, size = case.split()
    rows, columns = map(int, size.split("x"))
    latents = mx.array(RESIZED["latents"].transpose(0, 2, 3, 1))
    resized = resize_latents(latents, columns, rows, method, antialias=antialias == "True")
    assert np.abs(np.asarray(resized).transpose(0, 3, 1, 2) - RESIZED[case]).max() < 1e-5


def test_latent_mask_is_rounded_to_whole_cells() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    cells = np.asarray(latent_mask(mask, 8, 8))[0, :, :, 0]
    assert set(np.unique(cells)) == {0.0, 1.0}
    assert cells[:, :4].max() == 0
    assert cells[:, 4:].min() == 1


def test_blend_keeps_latents_outside_the_mask() -> None:
    repaint = mx.array([[[[1.0], [0.0]]]])
    blended = LatentMask(repaint, mx.full((1, 1, 2, 4), 7.0)).blend(mx.full((1, 1, 2, 4), 3.0))
    assert np.asarray(blended)[0, 0, :, 0].tolist() == [3.0, 7.0]


def encode_means(pixels: Image.Image | np.ndarray) -> mx.array:
    cells = np.asarray(pixels).reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
    return mx.array(np.concatenate([cells, cells[:, :, :1]], axis=-1)[None])


def test_inpainting_model_gets_the_mask_and_the_image_without_the_repainted_part() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    extra = np.asarray(masked_image_channels(Image.new("RGB", (64, 64), "white"), mask, (64, 64), encode_means))
    assert extra.shape == (1, 8, 8, 5)
    assert (extra[0, :, :4, 0].max(), extra[0, :, 4:, 0].min()) == (0, 1)
    assert (extra[0, :, :4, 1:].min(), np.abs(extra[0, :, 4:, 1:]).max()) == (1, 0)


def test_inpainting_model_without_an_image_repaints_grey() -> None:
    extra = np.asarray(masked_image_channels(None, None, (64, 64), encode_means))
    assert extra[..., 0].min() == 1
    assert not extra[..., 1:].any()


class Flat:
    """VAE whose image shows its latents' first three channels."""

    def encode(self, image: mx.array) -> mx.array:
        return mx.zeros((1, image.shape[1] // 8, image.shape[2] // 8, 4)) + image.mean()

    def decode(self, latents: mx.array) -> mx.array:
        return mx.repeat(mx.repeat(latents[..., :3], 8, axis=1), 8, axis=2)


def test_decoded_values_are_cut_off_not_rounded() -> None:
    decoded = Autoencoder(Flat(), 0.5).decode(mx.full((1, 1, 1, 4), 0.5 * (2 * 100.9 / 255 - 1)))
    assert decoded.getpixel((0, 0)) == (100, 100, 100)


def test_encoded_latents_are_scaled() -> None:
    latents = Autoencoder(Flat(), 0.5).encode(Image.new("RGB", (16, 8), "white"))
    assert latents.shape == (1, 1, 2, 4)
    assert np.allclose(np.asarray(latents), 0.5)


def test_pixels_that_are_not_finite_are_no_image() -> None:
    with pytest.raises(NotFinite):
        Autoencoder(Flat(), 0.5).decode(mx.full((1, 1, 1, 4), float("nan")))
