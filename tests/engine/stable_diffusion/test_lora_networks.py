"""LoRAs on the networks of Stable Diffusion change them as deltas in their weights would; removal restores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import lora_files as files
from tests.support import lora_kernels as kernels
from tests.support.lora_files import Array, Made

mx = pytest.importorskip("mlx.core")

TOLERANCE = 1e-4
CONV, STRIDED, POINT = "down_blocks.0.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv", "mid_block.proj_in"
LINEAR, NORM = "mid_block.attn1.to_out.0", "mid_block.norm"
TEXT = "text_model.encoder.layers.0.mlp.fc1"


def networks(*, bits: int | None = None, inputs: int = 4) -> Any:
    """A few layers under the names of a UNet and a text encoder."""
    from mlx import nn

    from engine.pipelines.common.lora_stack import Networks

    mx.random.seed(3)
    unet = tree(
        {
            "conv_in": nn.Conv2d(inputs, 8, 3, padding=1),
            CONV: nn.Conv2d(8, 12, 3, padding=1),
            STRIDED: nn.Conv2d(12, 12, 3, stride=2, padding=1),
            POINT: nn.Conv2d(12, 64, 1),
            LINEAR: nn.Linear(64, 32),
            NORM: nn.GroupNorm(4, 32, pytorch_compatible=True),
        }
    )
    text = tree({TEXT: nn.Linear(64, 128)})
    if bits is not None:
        for network in (unet, text):
            nn.quantize(
                network, group_size=64, bits=bits, class_predicate=lambda _, layer: isinstance(layer, nn.Linear)
            )
    made = Networks({"unet": unet, "text_encoder": text})
    for path, layer in made.named_modules():
        if "bias" in layer:
            layer.bias = mx.random.normal(layer.bias.shape, key=mx.random.key(len(path)))
    mx.eval(made.parameters())
    return made


def tree(layers: dict[str, Any]) -> Any:
    """A module with these layers at their paths; numbers are indices of lists."""
    from mlx import nn

    nested: dict[str, Any] = {}
    for path, layer in layers.items():
        *holders, last = path.split(".")
        at = nested
        for holder in holders:
            at = at.setdefault(holder, {})
        at[last] = layer

    def built(node: Any) -> Any:
        if not (isinstance(node, dict) and not isinstance(node, nn.Module)):
            return node
        if all(key.isdecimal() for key in node):
            return [built(node[str(number)]) for number in range(len(node))]
        module = nn.Module()
        for name, value in node.items():
            setattr(module, name, built(value))
        return module

    return built(nested)


def layer_at(made: Any, path: str) -> Any:
    from mflux.models.common.lora.mapping.lora_loader import LoRALoader

    return LoRALoader._get_target_module(made, path)


def array(value: Any) -> Array:
    return np.array(value.astype(mx.float32)).astype(np.float64)


def weight_of(layer: Any) -> Array:
    """Weight in torch's layout."""
    from engine.pipelines.common.lora_layers import weights

    found = array(weights(layer))
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found


def applied(made: Any, *uses: tuple[Path, float] | tuple[Path, float, float | None], family: str = "sd1") -> Any:
    from engine.pipelines.common.lora_stack import LoraStack, LoraUse

    stack = LoraStack(made, family)
    stack.apply(tuple(LoraUse(str(file), *scales) for file, *scales in uses))
    return stack


def through(layer: Any, x: Array) -> Array:
    return array(layer(mx.array(x.astype(np.float32))))


def by_hand(layer: Any, weight: Array, bias: Array, x: Array) -> Array:
    """What a layer with this weight in torch's layout makes of `x`."""
    from mlx import nn

    if weight.ndim == 2:
        return x @ weight.T + bias
    assert isinstance(layer, nn.Conv2d)
    kernel = mx.array(weight.transpose(0, 2, 3, 1).astype(np.float32))
    return array(mx.conv2d(mx.array(x.astype(np.float32)), kernel, layer.stride, layer.padding)) + bias


def close(got: Array, right: Array) -> bool:
    return bool(np.abs(got - right).max() <= TOLERANCE * np.abs(right).max())


def inputs_of(layer: Any, random: np.random.Generator) -> Array:
    inputs = weight_of(layer).shape[1]
    return random.normal(size=(2, 6, 5, inputs) if weight_of(layer).ndim == 4 else (3, inputs))


def saved(folder: Path, name: str, layers: dict[str, Made], prefix: str = "lora_unet_") -> Path:
    file = folder / f"{name}.safetensors"
    files.save(file, {path.replace(".", "_"): made for path, made in layers.items()}, prefix)
    return file


@pytest.mark.parametrize(
    ("path", "style"),
    [
        *((path, style) for path in (CONV, STRIDED) for style in kernels.STYLES),
        *((path, style) for path in (POINT, LINEAR) for style in kernels.STYLES if "core" not in style),
    ],
)
def test_lora_changes_layer_as_merged_weight_and_is_removed(path: str, style: str, tmp_path: Path) -> None:
    made, random = networks(), np.random.default_rng(5)
    layer = layer_at(made.unet, path)
    weight, bias, x = weight_of(layer), array(layer.bias), inputs_of(layer, random)
    change = kernels.STYLES[style](weight, random)
    before = through(layer, x)
    file = saved(tmp_path, "x", {path: change})
    for scale in (1.0, -0.5):
        stack = applied(made, (file, scale))
        right = by_hand(layer, weight + scale * (change.weight(weight) - weight), bias + scale * change.bias, x)
        adapted = layer_at(made.unet, path)
        assert close(through(adapted, x), right)
        assert close(weight_of(adapted), weight + scale * (change.weight(weight) - weight))
        assert np.abs(right - before).max() > 10 * TOLERANCE * np.abs(right).max()
        stack.apply(())
        assert layer_at(made.unet, path) is layer
        assert np.array_equal(through(layer, x), before)


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("path", [CONV, LINEAR])
def test_lora_files_add_up_in_order(path: str, bits: int | None, tmp_path: Path) -> None:
    made, random = networks(bits=bits), np.random.default_rng(5)
    layer = layer_at(made.unet, path)
    weight, bias, x = weight_of(layer), array(layer.bias), inputs_of(layer, random)
    uses = []
    changed = weight
    for name, scale in (
        ("locon", 0.5),
        ("dora of rows", 1.0),
        ("ia3 of inputs", -0.75),
        ("loha", 0.25),
        ("ia3 of outputs", 0.5),
        ("dora of columns", -1.0),
    ):
        change = kernels.STYLES[name](weight, random)
        uses.append((saved(tmp_path, name.replace(" ", "-"), {path: change}), scale))
        changed = changed + scale * (change.weight(changed) - changed)
    stack = applied(made, *uses)
    assert close(weight_of(layer_at(made.unet, path)), changed)
    assert close(through(layer_at(made.unet, path), x), by_hand(layer, changed, bias, x))
    stack.apply(())
    assert layer_at(made.unet, path) is layer


def test_lora_of_four_channels_leaves_further_inputs_of_an_inpainting_model(tmp_path: Path) -> None:
    made, random = networks(inputs=9), np.random.default_rng(5)
    layer = made.unet.conv_in
    weight, x = weight_of(layer), inputs_of(layer, random)
    for style in ("locon", "locon with core", "loha", "lokr", "diff"):
        change = kernels.STYLES[style](weight[:, :4], random)
        applied(made, (saved(tmp_path, "x", {"conv_in": change}), 0.5))
        right = weight.copy()
        right[:, :4] += 0.5 * (change.weight(weight[:, :4]) - weight[:, :4])
        assert close(weight_of(made.unet.conv_in), right)
        assert close(through(made.unet.conv_in, x), by_hand(layer, right, array(layer.bias) + 0.5 * change.bias, x))
        made.unet.conv_in = layer


@pytest.mark.parametrize("text_scale", [None, 0.0, -0.5])
def test_lora_scale_of_text_encoders_is_their_own(text_scale: float | None, tmp_path: Path) -> None:
    made, random = networks(), np.random.default_rng(5)
    unet, text = made.unet.mid_block.attn1.to_out[0], layer_at(made.text_encoder, TEXT)
    weights = weight_of(unet), weight_of(text)
    changes = [kernels.STYLES["locon"](weight, random) for weight in weights]
    file = tmp_path / "x.safetensors"
    files.save(
        file,
        {
            f"lora_unet_{LINEAR.replace('.', '_')}": changes[0],
            f"lora_te_{TEXT.replace('.', '_')}": changes[1],
        },
    )
    stack = applied(made, (file, 0.75, text_scale))
    scales = 0.75, 0.75 if text_scale is None else text_scale
    for path, weight, change, scale in zip(
        (f"unet.{LINEAR}", f"text_encoder.{TEXT}"), weights, changes, scales, strict=True
    ):
        assert close(weight_of(layer_at(made, path)), weight + scale * (change.weight(weight) - weight))
    assert stack.text_encoder_loras == (() if text_scale == 0 else ((str(file), scales[1]),))
    assert (layer_at(made.text_encoder, TEXT) is text) == (text_scale == 0)
    stack.apply(())
    assert stack.text_encoder_loras == ()
    assert (layer_at(made.unet, LINEAR), layer_at(made.text_encoder, TEXT)) == (unet, text)


def test_lora_changes_norms_and_restores_them(tmp_path: Path) -> None:
    made = networks()
    norm = layer_at(made.unet, NORM)
    before = array(norm.weight), array(norm.bias)
    deltas = np.linspace(-1, 1, 32), np.linspace(2, 1, 32)
    change = Made({"w_norm": deltas[0], "b_norm": deltas[1]}, lambda base: base)
    stack = applied(made, (saved(tmp_path, "x", {NORM: change}), -0.5))
    assert close(array(norm.weight), before[0] - 0.5 * deltas[0])
    assert close(array(norm.bias), before[1] - 0.5 * deltas[1])
    stack.apply(())
    assert np.array_equal(array(norm.weight), before[0])
    assert np.array_equal(array(norm.bias), before[1])


def test_lora_factors_are_kept_as_factors(tmp_path: Path) -> None:
    from mlx.utils import tree_flatten

    made, random = networks(), np.random.default_rng(5)
    before = sum(value.size for _, value in tree_flatten(made.parameters()))
    for path, style in ((CONV, "locon"), (LINEAR, "locon"), (LINEAR, "loha"), (LINEAR, "lokr, factored")):
        change = kernels.STYLES[style](weight_of(layer_at(made.unet, path)), random)
        stack = applied(made, (saved(tmp_path, "x", {path: change}), 1.0))
        more = sum(value.size for _, value in tree_flatten(made.parameters())) - before
        assert more == sum(part.size for name, part in change.tensors.items() if name != "alpha")
        stack.apply(())


@pytest.mark.parametrize("style", ["locon", "dora of columns", "diff"])
def test_lora_is_merged_where_its_factors_are_hardly_smaller_than_the_layer(style: str, tmp_path: Path) -> None:
    from mlx import nn
    from mlx.utils import tree_flatten

    made, random = networks(), np.random.default_rng(5)
    layer = layer_at(made.unet, LINEAR)
    narrow = made.unet.mid_block.attn1.to_out[0] = nn.Linear(12, 8, bias=style == "locon")
    before = sum(value.size for _, value in tree_flatten(made.parameters()))
    weight, x = weight_of(narrow), random.normal(size=(3, 12))
    change = kernels.STYLES[style](weight, random)
    bias = array(narrow.bias) if "bias" in narrow else 0.0
    stack = applied(made, (saved(tmp_path, "x", {LINEAR: change}), 0.5))
    merged = layer_at(made.unet, LINEAR)
    assert type(merged) is nn.Linear
    right = weight + 0.5 * (change.weight(weight) - weight)
    assert close(through(merged, x), x @ right.T + bias + 0.5 * change.bias)
    assert sum(value.size for _, value in tree_flatten(made.parameters())) == before + (8 if style == "diff" else 0)
    stack.apply(())
    assert layer_at(made.unet, LINEAR) is narrow
    assert layer is not narrow
    assert close(weight_of(narrow), weight)
    assert ("bias" in narrow) == (style == "locon")


def test_lora_ia3_of_inputs_with_the_size_of_outputs_is_refused(tmp_path: Path) -> None:
    from engine.pipelines.common.lora_stack import LoraFault

    made = networks()
    layer = layer_at(made.unet, LINEAR)
    change = Made({"weight": np.ones(32), "on_input": np.array(1.0)}, lambda base: base)
    with pytest.raises(LoraFault, match="has factors of another size"):
        applied(made, (saved(tmp_path, "x", {LINEAR: change}), 1.0))
    assert layer_at(made.unet, LINEAR) is layer


def test_lora_in_half_precision_stays_close(tmp_path: Path) -> None:
    """On a GPU the networks are in float16."""
    made, random = networks(), np.random.default_rng(5)
    made.apply(lambda one: one.astype(mx.float16))
    for path in (CONV, LINEAR):
        layer = layer_at(made.unet, path)
        weight, x = weight_of(layer), inputs_of(layer, random)
        for style in ("locon", "loha", "dora of rows", "dora of columns", "ia3 of inputs", "ia3 of outputs"):
            change = kernels.STYLES[style](weight, random)
            stack = applied(made, (saved(tmp_path, "x", {path: change}), 1.0))
            got = layer_at(made.unet, path)(mx.array(x.astype(np.float16)))
            right = by_hand(layer, change.weight(weight), array(layer.bias) + change.bias, x)
            assert got.dtype == mx.float16
            assert np.abs(array(got) - right).max() <= 0.01 * np.abs(right).max()
            stack.apply(())
