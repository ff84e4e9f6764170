"""The networks compute what diffusers and transformers compute from the same weights.

The golden outputs are made by tools/golden_stable_diffusion/networks.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from engine.checkpoints.architecture import Level, Middle, UNetArchitecture
from engine.checkpoints.sizes import clip_architecture, unet_architecture, vae_architecture
from engine.pipelines.stable_diffusion.loading import Parts, load_parts
from engine.pipelines.stable_diffusion.networks.clip import ClipText
from engine.pipelines.stable_diffusion.networks.unet import UNet, embed_sizes
from engine.pipelines.stable_diffusion.networks.vae import Vae
from tests.support.stable_diffusion import text_config, toy_checkpoint, unet_config, vae_config
from tests.support.stable_diffusion_networks import (
    DISTILLED_CONFIG,
    GOLDEN_SEED,
    IMAGE,
    LATENTS,
    ODD_LATENTS,
    PICTURE_SIZES,
    TIMESTEPS,
    UNUSUAL,
    VAE_LATENTS,
    golden_input,
    golden_tokens,
)
from tests.support.stable_diffusion_tensors import (
    SIZE_CHANNELS,
    TOY_SIZES,
    Family,
    ToySizes,
    ToyText,
    toy_tensors,
    toy_values,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "stable_diffusion" / "networks.npz"
TOLERANCE = 2e-5
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "sdxl_refiner")


@cache
def golden(name: str) -> np.ndarray:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return np.array(arrays[name])


@pytest.fixture(scope="module")
def parts_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def load(family: Family) -> Parts:
        folder = tmp_path_factory.mktemp(family)
        return load_parts(toy_checkpoint(folder, family, dtype="float32", seed=GOLDEN_SEED))

    return load


def assert_close(found: mx.array, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.abs(np.array(found) - wanted).max() < TOLERANCE * max(1.0, np.abs(wanted).max())


def channels_last(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1)


def images(name: str, channels: int, size: tuple[int, int], count: int = 1) -> mx.array:
    return mx.array(np.ascontiguousarray(channels_last(golden_input(name, (count, channels, *size)))))


def predict(unet: UNet, size: tuple[int, int]) -> mx.array:
    architecture = unet.architecture
    added = None
    if (channels := architecture.added_channels) is not None:
        numbers = PICTURE_SIZES[: 5 if channels == TOY_SIZES["sdxl_refiner"].added else 6]
        pooled = mx.array(golden_input("pooled", (2, channels - SIZE_CHANNELS * len(numbers))))
        added = mx.concatenate([pooled, mx.repeat(embed_sizes(numbers), 2, axis=0)], axis=-1)
    context = mx.array(golden_input("context", (2, 77, architecture.context_channels)))
    return unet(images("latents", architecture.in_channels, size, 2), mx.array(TIMESTEPS), context, added)


def filled(module: nn.Module, part: str, kernels: tuple[str, ...] = ()) -> nn.Module:
    """The module with toy weights by the names of its parameters; `kernels` are stored as 1x1 convolutions."""

    def values(path: str, shape: tuple[int, ...]) -> mx.array:
        if len(shape) == 4:
            stored = (shape[0], shape[3], shape[1], shape[2])
            return mx.array(toy_values(f"{part}/{path}", stored, GOLDEN_SEED).transpose(0, 2, 3, 1))
        return mx.array(toy_values(f"{part}/{path}", shape, GOLDEN_SEED))

    parameters: list[tuple[str, mx.array]] = tree_flatten(module.parameters())
    module.load_weights([(path, values(path, array.shape)) for path, array in parameters])
    return module


def shapes_of(sizes: ToySizes, part: str) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in toy_tensors("sdxl", sizes) if tensor.part == part}


@pytest.mark.parametrize("family", FAMILIES)
def test_unet_predicts_what_diffusers_predicts(family: Family, parts_of: Any) -> None:
    assert_close(predict(parts_of(family).unet, LATENTS), channels_last(golden(f"{family}/unet")))


@pytest.mark.parametrize("family", FAMILIES)
def test_unet_joins_odd_sides_as_a1111_does(family: Family, parts_of: Any) -> None:
    assert_close(predict(parts_of(family).unet, ODD_LATENTS), channels_last(golden(f"{family}/unet_odd")))


def test_unet_of_an_inpainting_model_predicts_what_diffusers_predicts(tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path, "sd1", dtype="float32", inpainting=True, seed=GOLDEN_SEED)
    assert_close(predict(load_parts(path).unet, LATENTS), channels_last(golden("inpainting/unet")))


def test_unet_with_heads_and_groups_of_its_configuration_predicts_what_diffusers_predicts() -> None:
    architecture = unet_architecture(shapes_of(UNUSUAL, "unet"), unet_config(UNUSUAL))
    assert architecture.groups == 8
    assert [level.heads for level in architecture.down] == [4, 4, 8]
    unet = filled(UNet(architecture), "unet")
    assert_close(predict(unet, LATENTS), channels_last(golden("unusual/unet")))


def test_unet_without_attention_in_its_middle_predicts_what_diffusers_predicts() -> None:
    """SSD-1B: one residual block in the middle, and depths that differ within a level."""
    architecture = UNetArchitecture(
        in_channels=4,
        out_channels=4,
        time_channels=64,
        context_channels=32,
        added_channels=None,
        linear_projection=True,
        down=(Level(16, 2, (0, 0), True), Level(32, 4, (2, 1), False)),
        middle=Middle(32, 4, 1, 0),
        up=(Level(32, 4, (1, 1, 2), True), Level(16, 2, (0, 0, 0), False)),
        groups=16,
    )
    unet = filled(UNet(architecture), "unet")
    assert_close(predict(unet, LATENTS), channels_last(golden("distilled/unet")))
    shapes = {path: array.shape for path, array in tree_flatten(unet.parameters())}
    stored = {path: (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape for path, shape in shapes.items()}
    assert unet_architecture(stored, DISTILLED_CONFIG) == architecture


TEXTS = [(family, text) for family in FAMILIES for text in TOY_SIZES[family].texts]


@pytest.mark.parametrize(("family", "text"), TEXTS, ids=lambda value: getattr(value, "part", value))
def test_text_encoder_encodes_what_transformers_encodes(family: Family, text: ToyText, parts_of: Any) -> None:
    encoder = parts_of(family).networks[text.part]
    out = encoder(mx.array(golden_tokens()))
    if family == "sd2":  # its last layer, which nothing reads, is not loaded
        assert_close(out.hidden_states[-1], golden("sd2/text_encoder/penultimate"))
        return
    assert_close(out.hidden_states[-2], golden(f"{family}/{text.part}/penultimate"))
    assert_close(out.last, golden(f"{family}/{text.part}/last"))
    assert_close(out.pooled, golden(f"{family}/{text.part}/pooled"))


@pytest.mark.parametrize("text", UNUSUAL.texts, ids=lambda text: text.part)
def test_text_encoder_with_heads_of_its_configuration_encodes_what_transformers_encodes(text: ToyText) -> None:
    architecture = clip_architecture(shapes_of(UNUSUAL, text.part), text_config(text))
    assert architecture.heads == 4
    out = filled(ClipText(architecture), text.part)(mx.array(golden_tokens()))
    assert_close(out.last, golden(f"unusual/{text.part}/last"))
    assert_close(out.pooled, golden(f"unusual/{text.part}/pooled"))


def test_vae_decodes_and_encodes_what_diffusers_does(parts_of: Any) -> None:
    vae = parts_of("sd1").vae
    assert_close(vae.decode(images("vae", 4, VAE_LATENTS)), channels_last(golden("sd1/decoded")))
    assert_close(vae.encode(images("image", 3, IMAGE)), channels_last(golden("sd1/encoded")))


def test_vae_with_groups_of_its_configuration_decodes_what_diffusers_decodes() -> None:
    architecture = vae_architecture(shapes_of(UNUSUAL, "vae"), vae_config(UNUSUAL, 1.0))
    assert (architecture.groups, architecture.pixels) == (16, 4)
    vae = filled(Vae(architecture), "vae")
    assert_close(vae.decode(images("vae", 4, VAE_LATENTS)), channels_last(golden("unusual/decoded")))
    assert_close(vae.encode(images("image", 3, IMAGE)), channels_last(golden("unusual/encoded")))
