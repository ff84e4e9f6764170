"""LoRAs on loaded checkpoints of every family: each layer changes the prediction as a merged weight would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.stable_diffusion.test_lora_names import toy_modules
from tests.support import lora_files as files
from tests.support import lora_kernels as kernels
from tests.support.lora_files import Array, Made
from tests.support.stable_diffusion import toy_checkpoint
from tests.support.stable_diffusion_tensors import Family, toy_tensors

mx = pytest.importorskip("mlx.core")

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
SCALE = 0.05
PAD = [(0, 0), (0, 5), (0, 0), (0, 0)]


def loaded(folder: Path, family: Family, **how: Any) -> Any:
    from engine.pipelines.stable_diffusion.loading import load_parts

    return load_parts(toy_checkpoint(folder, family, dtype="float32", **how))


def stack_of(parts: Any, family: str) -> Any:
    from engine.pipelines.common.lora_stack import LoraStack, Networks

    networks = {name: network for name, network in parts.networks.items() if name != "vae"}
    return LoraStack(Networks(networks), family)


def outputs(parts: Any, channels: int = 4) -> list[Array]:
    """Prediction of the UNet, and the last hidden state of each text encoder, for fixed inputs."""
    random = np.random.default_rng(1)

    def drawn(*shape: int) -> Any:
        return mx.array(random.normal(size=shape).astype(np.float32))

    architecture = parts.architecture.unet
    added = None if architecture.added_channels is None else drawn(1, architecture.added_channels)
    made = [parts.unet(drawn(1, 8, 8, channels), mx.array([500.5]), drawn(1, 77, architecture.context_channels), added)]
    tokens = mx.array(random.integers(0, 49000, (1, 77)))
    made += [encoder(tokens).hidden_states[-1] for encoder in parts.text_encoders]
    return [np.array(one) for one in made]


def close(found: list[Array], wanted: list[Array]) -> bool:
    pairs = zip(found, wanted, strict=True)
    return all(np.abs(one - other).max() <= 1e-4 * np.abs(other).max() for one, other in pairs)


def kohya_name(path: str, family: str, ldm: dict[str, str]) -> str:
    """kohya's name of a module; with LDM's names for SDXL, as its trainers write them."""
    network, _, rest = path.partition(".")
    prefix = "lora_te1_" if network == "text_encoder" and family == "sdxl" else PREFIXES[network]
    return prefix + ldm.get(path, rest).replace(".", "_")


def ldm_names(family: Family) -> dict[str, str]:
    return {
        f"unet.{tensor.name.removesuffix('.weight')}": tensor.original[len("model.diffusion_model.") : -len(".weight")]
        for tensor in toy_tensors(family)
        if tensor.part == "unet" and tensor.name.endswith(".weight")
    }


def changed_by_hand(parts: Any, changes: dict[str, Made], scale: float) -> None:
    """Merge the changes into the weights."""
    from mflux.models.common.lora.mapping.lora_loader import LoRALoader

    for path, change in changes.items():
        network, _, rest = path.partition(".")
        layer = LoRALoader._get_target_module(parts.networks[network], rest)
        weight = np.array(layer.weight).astype(np.float64)
        torch_layout = weight.transpose(0, 3, 1, 2) if weight.ndim == 4 else weight
        merged = torch_layout + scale * (change.weight(torch_layout) - torch_layout)
        layer.weight = mx.array((merged.transpose(0, 2, 3, 1) if weight.ndim == 4 else merged).astype(np.float32))


@pytest.mark.parametrize("family", ["sd2", "sdxl_refiner"])
def test_lora_modules_of_loaded_checkpoint_are_those_of_its_file(family: Family, tmp_path: Path) -> None:
    from engine.pipelines.common.lora_layers import modules_of

    modules = toy_modules(family)
    if family == "sd2":  # nothing reads the last layer of its text encoder
        modules = {path: module for path, module in modules.items() if ".encoder.layers.2." not in path}
    assert modules_of(stack_of(loaded(tmp_path, family), family)._transformer) == modules


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_lora_on_every_layer_predicts_as_merged_weights_do(family: Family, tmp_path: Path) -> None:
    from engine.pipelines.common.lora_layers import modules_of
    from engine.pipelines.common.lora_stack import LoraUse

    parts, random = loaded(tmp_path, family), np.random.default_rng(3)
    stack = stack_of(parts, family)
    modules = toy_modules(family)
    assert modules_of(stack._transformer) == modules
    changes: dict[str, Made] = {}
    for path, module in modules.items():
        if module.inputs is None:
            continue
        points = (module.kernel, module.kernel) if module.kernel > 1 else ()
        changes[path] = kernels.locon()(np.zeros((module.outputs, module.inputs, *points)), random)
    ldm = ldm_names(family) if family.startswith("sdxl") else {}
    file = tmp_path / "x.safetensors"
    files.save(file, {kohya_name(path, family, ldm): change for path, change in changes.items()})
    stack.apply((LoraUse(str(file), SCALE),))
    adapted = outputs(parts)
    stack.apply(())
    removed = outputs(parts)
    changed_by_hand(parts, changes, SCALE)
    merged = outputs(parts)
    assert close(adapted, merged)
    assert not close(merged, removed)


def test_lora_on_inpainting_checkpoint_changes_the_latents_alone(tmp_path: Path) -> None:
    from engine.pipelines.common.lora_stack import LoraUse

    parts, random = loaded(tmp_path, "sd1", inpainting=True), np.random.default_rng(3)
    change = kernels.locon()(np.zeros((32, 4, 3, 3)), random)
    padded = Made(change.tensors, lambda base: base + np.pad(change.weight(np.zeros((32, 4, 3, 3))), PAD))
    files.save(tmp_path / "x.safetensors", {"lora_unet_conv_in": change})
    stack = stack_of(parts, "sd1")
    stack.apply((LoraUse(str(tmp_path / "x.safetensors"), 0.5),))
    adapted = outputs(parts, 9)
    stack.apply(())
    changed_by_hand(parts, {"unet.conv_in": padded}, 0.5)
    assert close(adapted, outputs(parts, 9))


def test_lora_of_another_family_leaves_loaded_checkpoint_unchanged(tmp_path: Path) -> None:
    from engine.pipelines.common.lora_stack import LoraFault, LoraUse

    parts = loaded(tmp_path, "sd1")
    before = outputs(parts)
    wide = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": np.ones((4, 64)),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": np.ones((32, 4)),
    }
    file = tmp_path / "x.safetensors"
    mx.save_safetensors(str(file), {name: mx.array(value.astype(np.float32)) for name, value in wide.items()})
    with pytest.raises(LoraFault, match="has other sizes at"):
        stack_of(parts, "sd1").apply((LoraUse(str(file), 1.0),))
    assert all(map(np.array_equal, outputs(parts), before))
