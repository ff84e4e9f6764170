"""The published models are built in their sizes, and memory of attention is bounded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from engine.checkpoints.kinds import NotACheckpoint
from engine.checkpoints.sizes import clip_architecture, unet_architecture, vae_architecture
from engine.pipelines.stable_diffusion.networks import attend as attention
from engine.pipelines.stable_diffusion.networks.clip import ClipText
from engine.pipelines.stable_diffusion.networks.unet import UNet, embed, embed_sizes
from engine.pipelines.stable_diffusion.networks.vae import Vae
from tests.support.stable_diffusion_tensors import (
    TOY_SIZES,
    Family,
    ToySizes,
    ToyTensor,
    ToyText,
    clip_tensors,
    open_clip_tensors,
    unet_tensors,
    vae_tensors,
)

_SD1 = replace(TOY_SIZES["sd1"], channels=(320, 640, 1280, 1280), context=768)
PUBLISHED: dict[Family, ToySizes] = {
    "sd1": _SD1,
    "sd2": replace(_SD1, context=1024, linear_projection=True),
    "sdxl": replace(
        TOY_SIZES["sdxl"], channels=(320, 640, 1280), depths=(0, 2, 10), mid_depth=10, context=2048, added=2816
    ),
}
PARAMETERS: dict[Family, int] = {"sd1": 859_520_964, "sd2": 865_910_724, "sdxl": 2_567_463_684}
"""Parameters of the published UNets."""
HEADS: dict[Family, list[int]] = {"sd1": [8, 8, 8, 8], "sd2": [5, 10, 20, 20], "sdxl": [5, 10, 20]}


def count(network: nn.Module) -> int:
    """Number of parameters. None of them is computed."""
    return sum(array.size for _, array in tree_flatten(network.parameters()))


def shapes(tensors: list[ToyTensor]) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in tensors}


@pytest.mark.parametrize("family", PUBLISHED)
def test_unet_of_a_published_model_has_its_parameters_and_heads(family: Family) -> None:
    architecture = unet_architecture(shapes(unet_tensors(PUBLISHED[family])))
    assert count(UNet(architecture)) == PARAMETERS[family]
    assert [level.heads for level in architecture.down] == HEADS[family]


def test_unet_without_a_middle_and_with_one_block_a_level_predicts() -> None:
    """BK-SDM-Tiny and its kin."""
    dropped = re.compile(
        r"mid_block\.|down_blocks\.\d\.(?:resnets|attentions)\.1|up_blocks\.\d\.(?:resnets|attentions)\.2"
    )
    tensors = [tensor for tensor in unet_tensors(TOY_SIZES["sd1"]) if not dropped.match(tensor.name)]
    architecture = unet_architecture(shapes(tensors))
    assert (architecture.middle.resnets, architecture.middle.depth) == (0, 0)
    assert [len(level.depths) for level in (*architecture.down, *architecture.up)] == [1, 1, 1, 1, 2, 2, 2, 2]
    found = UNet(architecture)(mx.zeros((1, 8, 8, 4)), mx.array([500.0]), mx.zeros((1, 7, 32)))
    assert found.shape == (1, 8, 8, 4)


def test_unet_whose_middle_has_attention_alone_is_refused() -> None:
    tensors = [tensor for tensor in unet_tensors(TOY_SIZES["sd1"]) if "mid_block.resnets" not in tensor.name]
    with pytest.raises(NotACheckpoint, match="mid_block"):
        unet_architecture(shapes(tensors))


@pytest.mark.parametrize(
    ("tensors", "text", "parameters"),
    [
        (clip_tensors, ToyText("text_encoder", "", False, 768, 12, 12), 123_060_480),
        (open_clip_tensors, ToyText("text_encoder_2", "", True, 1280, 20, 32, 1280), 694_659_840),
    ],
)
def test_text_encoder_of_a_published_model_has_its_parameters_and_heads(
    tensors: Callable[[ToyText], list[ToyTensor]], text: ToyText, parameters: int
) -> None:
    architecture = clip_architecture(shapes(tensors(text)), is_open_clip=text.is_open_clip)
    assert count(ClipText(architecture)) == parameters
    assert architecture.heads == text.heads


def test_vae_of_the_published_models_has_its_parameters() -> None:
    architecture = vae_architecture(shapes(vae_tensors((128, 256, 512, 512))))
    assert count(Vae(architecture)) == 83_653_863
    assert architecture.pixels == 8


def test_embedding_of_a_number_has_cosines_before_sines() -> None:
    found = np.array(embed(mx.array([3.5]), 4))
    assert found == pytest.approx(np.array([[np.cos(3.5), np.cos(0.035), np.sin(3.5), np.sin(0.035)]]), abs=1e-6)


def test_sizes_are_embedded_one_after_the_other() -> None:
    assert embed_sizes((512, 768)).shape == (1, 512)
    assert mx.array_equal(embed_sizes((512, 768))[:, 256:], embed(mx.array([768.0]), 256))


@pytest.mark.parametrize("queries", [16, 17])
def test_attention_to_parts_of_the_queries_is_the_same_attention(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (mx.random.normal((2, 3, n, 8), key=mx.random.key(n)) for n in (queries, 20, 20))
    whole = attention.attend(q, k, v)
    monkeypatch.setattr(attention, "MOST_PRODUCTS", 500)
    assert attention.rows_at_once(q.shape, 20) < queries / 3
    assert mx.allclose(attention.attend(q, k, v), whole, atol=1e-6)


def test_attention_of_a_large_image_is_taken_apart_where_no_fused_kernel_bounds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    level_0 = (2, 8, 128 * 128, 40)
    assert attention.rows_at_once(level_0, 128 * 128) == 512
    assert attention.rows_at_once((2, 8, 64 * 64, 40), 77) == 64 * 64
    monkeypatch.setattr(attention.mx, "default_device", lambda: mx.Device(mx.DeviceType.gpu))
    assert attention.rows_at_once(level_0, 128 * 128) == 512
    assert attention.rows_at_once((2, 10, 128 * 128, 64), 128 * 128) == 128 * 128


def clip() -> ClipText:
    return ClipText(clip_architecture(shapes(clip_tensors(ToyText("text_encoder", "", False, 16, 2, 3)))))


TOKENS = mx.array([[49406, 320, 1125, 49407, 49407, 49407]])


def test_text_encoder_reads_replaced_embeddings() -> None:
    encoder = clip()
    embeddings = encoder.embed(TOKENS)
    assert mx.allclose(encoder(TOKENS, embeddings).last, encoder(TOKENS).last)
    changed = mx.concatenate([embeddings[:, :2], embeddings[:, 2:3, ::-1], embeddings[:, 3:]], axis=1)
    found = encoder(TOKENS, changed)
    assert not mx.allclose(found.pooled, encoder(TOKENS).pooled)
    assert mx.allclose(found.last[:, :2], encoder(TOKENS).last[:, :2], atol=1e-6), "tokens see none after them"


def test_text_encoder_gives_each_layer_for_clip_skip() -> None:
    encoder = clip()
    out = encoder(TOKENS)
    assert len(out.hidden_states) == 4
    assert mx.array_equal(encoder.normalise(out.hidden_states[-1]), out.last)
    assert not mx.allclose(encoder.normalise(out.hidden_states[-2]), out.last)


def test_pooled_output_is_that_of_the_first_end_token() -> None:
    out = clip()(TOKENS)
    assert mx.array_equal(out.pooled, out.last[:, 3])


def test_silu_and_convolutions_of_the_networks_are_those_that_a_cpu_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """engine/pipelines/cpu puts faster functions into MLX's modules, which must be looked up at each call."""
    calls: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(mx, "conv2d", counted("conv2d", mx.conv2d))
    monkeypatch.setattr(nn, "silu", counted("silu", nn.silu))
    vae = Vae(vae_architecture(shapes(vae_tensors((32, 32)))))
    mx.eval(vae.decode(mx.zeros((1, 2, 2, 4))))
    assert calls.count("conv2d") == 19
    assert calls.count("silu") == 17
