"""LoRA files of every public layout: each changes the model as the same delta baked into its weights by hand does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import lora_files as files
from tests.support import toys_pictures
from tests.support.lora_files import Array, Made, Style

mx = pytest.importorskip("mlx.core")

TOLERANCE = 1e-3
PEFT = files.lora("lora_A.weight", "lora_B.weight")
NAMED = files.lora("lora_A.default.weight", "lora_B.default.weight")
BARE = files.lora("lora_A", "lora_B")
KOHYA = files.lora("lora_down.weight", "lora_up.weight", "alpha")
DOTTED = files.lora("lora.down.weight", "lora.up.weight")
PROCESSOR = files.lora("down.weight", "up.weight")
CONV = files.lora("lora_down.weight", "lora_up.weight", "alpha", kernel=True)
MID = files.lora("lora_down.weight", "lora_up.weight", "alpha", kernel=True, mid="lora_mid.weight")
LOHA, LOHA_CORE = files.loha(), files.loha(core=True)
LOKR, LOKR_LOW, LOKR_BOTH = files.lokr(), files.lokr(second=True), files.lokr(first=True, second=True)
LOKR_CORE = files.lokr(second=True, core=True)
DORA, DORA_COLUMNS = files.dora(KOHYA, "dora_scale"), files.dora(KOHYA, "dora_scale", columns=True)
PEFT_DORA = files.dora(NAMED, "lora_magnitude_vector.default.weight", flat=True)
LOHA_DORA, LOKR_DORA = files.dora(LOHA, "dora_scale"), files.dora(LOKR_LOW, "dora_scale")

Names = Mapping[str, tuple[str, ...] | str]
"""A file's layer to the toy's modules, rows of one matrix; one in angle brackets has its halves swapped."""
IMAGE = tuple(f"transformer_blocks.0.attn.to_{one}" for one in "qkv")
TEXT = tuple(f"transformer_blocks.0.attn.add_{one}_proj" for one in "qkv")
SINGLE = tuple(f"single_transformer_blocks.0.attn.to_{one}" for one in "qkv")

FLUX1_DIFFUSERS: Names = {
    "transformer_blocks.0.attn.to_k": "transformer_blocks.0.attn.to_k",
    "transformer_blocks.0.attn.to_out.0": "transformer_blocks.0.attn.to_out.0",
    "transformer_blocks.0.attn.add_q_proj": "transformer_blocks.0.attn.add_q_proj",
    "transformer_blocks.0.ff.net.0.proj": "transformer_blocks.0.ff.linear1",
    "transformer_blocks.0.ff_context.net.2": "transformer_blocks.0.ff_context.linear2",
    "transformer_blocks.0.norm1_context.linear": "transformer_blocks.0.norm1_context.linear",
    "single_transformer_blocks.0.proj_mlp": "single_transformer_blocks.0.proj_mlp",
    "single_transformer_blocks.0.proj_out": "single_transformer_blocks.0.proj_out",
    "x_embedder": "x_embedder",
    "norm_out.linear": "norm_out.linear",
    "time_text_embed.guidance_embedder.linear_1": "time_text_embed.guidance_embedder.linear_1",
}
FLUX1_BFL: Names = {
    "double_blocks.0.img_attn.qkv": IMAGE,
    "double_blocks.0.txt_attn.qkv": TEXT,
    "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out.0",
    "double_blocks.0.txt_attn.proj": "transformer_blocks.0.attn.to_add_out",
    "double_blocks.0.img_mlp.0": "transformer_blocks.0.ff.linear1",
    "double_blocks.0.txt_mlp.2": "transformer_blocks.0.ff_context.linear2",
    "double_blocks.0.img_mod.lin": "transformer_blocks.0.norm1.linear",
    "single_blocks.0.linear1": (*SINGLE, "single_transformer_blocks.0.proj_mlp"),
    "single_blocks.0.linear2": "single_transformer_blocks.0.proj_out",
    "single_blocks.0.modulation.lin": "single_transformer_blocks.0.norm.linear",
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "<norm_out.linear>",
}
XLABS: Names = {
    "double_blocks.0.processor.qkv_lora1": IMAGE,
    "double_blocks.0.processor.qkv_lora2": TEXT,
    "double_blocks.0.processor.proj_lora1": "transformer_blocks.0.attn.to_out.0",
    "double_blocks.0.processor.proj_lora2": "transformer_blocks.0.attn.to_add_out",
    "single_blocks.0.processor.qkv_lora": SINGLE,
    "single_blocks.0.processor.proj_lora": "single_transformer_blocks.0.proj_out",
}
QWEN_TEXT = tuple(f"transformer_blocks.0.attn.add_{one}_proj" for one in "qkv")
QWEN: Names = {
    **{name: name for name in (*IMAGE, *QWEN_TEXT)},
    "transformer_blocks.0.attn.to_out.0": "transformer_blocks.0.attn.attn_to_out.0",
    "transformer_blocks.0.attn.to_add_out": "transformer_blocks.0.attn.to_add_out",
    "transformer_blocks.0.img_mlp.net.0.proj": "transformer_blocks.0.img_ff.mlp_in",
    "transformer_blocks.0.img_mlp.net.2": "transformer_blocks.0.img_ff.mlp_out",
    "transformer_blocks.0.txt_mlp.net.0.proj": "transformer_blocks.0.txt_ff.mlp_in",
    "transformer_blocks.0.img_mod.1": "transformer_blocks.0.img_mod_linear",
    "transformer_blocks.0.txt_mod.1": "transformer_blocks.0.txt_mod_linear",
    "img_in": "img_in",
    "txt_in": "txt_in",
    "proj_out": "proj_out",
    "norm_out.linear": "norm_out.linear",
    "time_text_embed.timestep_embedder.linear_1": "time_text_embed.timestep_embedder.linear_1",
}
Z_OWN: Names = {
    "layers.0.attention.to_q": "layers.0.attention.to_q",
    "layers.0.attention.to_out.0": "layers.0.attention.to_out.0",
    "layers.0.feed_forward.w2": "layers.0.feed_forward.w2",
    "layers.0.adaLN_modulation.0": "layers.0.adaLN_modulation.0",
    "noise_refiner.0.attention.to_v": "noise_refiner.0.attention.to_v",
    "context_refiner.0.feed_forward.w1": "context_refiner.0.feed_forward.w1",
    "cap_embedder.1": "cap_embedder.1",
    "all_x_embedder.2-1": "all_x_embedder.2-1",
    "t_embedder.mlp.0": "t_embedder.linear1",
}
Z_COMFY: Names = {
    "layers.0.attention.qkv": tuple(f"layers.0.attention.to_{one}" for one in "qkv"),
    "noise_refiner.0.attention.qkv": tuple(f"noise_refiner.0.attention.to_{one}" for one in "qkv"),
    "context_refiner.0.attention.qkv": tuple(f"context_refiner.0.attention.to_{one}" for one in "qkv"),
    "layers.0.attention.out": "layers.0.attention.to_out.0",
    "layers.0.feed_forward.w3": "layers.0.feed_forward.w3",
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.0",
    "t_embedder.mlp.2": "t_embedder.linear2",
}
FLUX2_DIFFUSERS: Names = {
    **{name: name for name in (*IMAGE, *TEXT)},
    "transformer_blocks.0.attn.to_out.0": "transformer_blocks.0.attn.to_out",
    "transformer_blocks.0.ff.linear_in": "transformer_blocks.0.ff.linear_in",
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
    "single_transformer_blocks.0.attn.to_out": "single_transformer_blocks.0.attn.to_out",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.linear",
    "single_stream_modulation.linear": "single_stream_modulation.linear",
    "time_guidance_embed.timestep_embedder.linear_1": "time_guidance_embed.linear_1",
    "x_embedder": "x_embedder",
    "norm_out.linear": "norm_out.linear",
}
FLUX2_BFL: Names = {
    "double_blocks.0.img_attn.qkv": IMAGE,
    "double_blocks.0.txt_attn.qkv": TEXT,
    "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out",
    "double_blocks.0.txt_mlp.0": "transformer_blocks.0.ff_context.linear_in",
    "double_blocks.0.img_mlp.2": "transformer_blocks.0.ff.linear_out",
    "single_blocks.0.linear1": "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
    "single_blocks.0.linear2": "single_transformer_blocks.0.attn.to_out",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "img_in": "x_embedder",
    "time_in.in_layer": "time_guidance_embed.linear_1",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "<norm_out.linear>",
}


def underscored(names: Names) -> Names:
    return {layer.replace(".", "_"): modules for layer, modules in names.items()}


@dataclass(frozen=True)
class Layout:
    """What is written in the place of each layer's name, and by whom."""

    family: str
    names: Names
    prefix: str
    style: Style

    def __str__(self) -> str:
        return self.family


def of(family: str, names: Names, **layouts: tuple[str, Style]) -> Iterator[Any]:
    for name, (prefix, style) in layouts.items():
        spelled = underscored(names) if prefix.endswith("_") else names
        yield pytest.param(Layout(family, spelled, prefix, style), id=f"{family} {name}")


LAYOUTS = [
    *of(
        "flux1",
        FLUX1_DIFFUSERS,
        diffusers=("transformer.", PEFT),
        bare=("", BARE),
        peft=("base_model.model.", NAMED),
        peft_transformer=("base_model.model.transformer.", PEFT),
        peft_alpha=("transformer.", files.peft_with_metadata("transformer.")),
        peft_rslora=("", files.peft_with_metadata("", rslora=True)),
        down_up=("transformer.", DOTTED),
        onetrainer=("lora_transformer_", KOHYA),
        kohya_diffusers=("lora_unet_", KOHYA),
        simpletuner_lokr=("lycoris_", LOKR),
        loha=("lora_transformer_", LOHA),
        lokr_low=("lora_unet_", LOKR_BOTH),
        dora=("lora_transformer_", DORA),
        peft_dora=("base_model.model.", PEFT_DORA),
        lokr_dora=("lycoris_", LOKR_DORA),
        diff=("diffusion_model.", files.diff),
    ),
    *of(
        "flux1",
        FLUX1_BFL,
        comfy=("diffusion_model.", PEFT),
        bfl=("", PEFT),
        bfl_peft=("base_model.model.", NAMED),
        kohya=("lora_unet_", KOHYA),
        conv=("lora_unet_", CONV),
        locon=("lora_unet_", MID),
        down_up_bfl=("model.diffusion_model.", DOTTED),
        loha_bfl=("lora_unet_", LOHA),
        loha_core=("lora_unet_", LOHA_CORE),
        lokr=("lora_unet_", LOKR),
        lokr_low_bfl=("diffusion_model.", LOKR_LOW),
        lokr_core=("diffusion_model.", LOKR_CORE),
        dora_bfl=("lora_unet_", DORA),
        dora_columns=("lora_unet_", DORA_COLUMNS),
        loha_dora=("lora_unet_", LOHA_DORA),
        diff_bfl=("diffusion_model.", files.diff),
        bias=("", files.lora_with_bias("lora_B.bias")),
        bias_comfy=("diffusion_model.", files.lora_with_bias("diff_b")),
    ),
    *of("flux1", XLABS, xlabs=("", PROCESSOR), xlabs_comfy=("diffusion_model.", PROCESSOR)),
    *of(
        "qwen",
        QWEN,
        diffusers=("transformer.", PEFT),
        bare=("", NAMED),
        comfy=("diffusion_model.", BARE),
        down_up=("", DOTTED),
        kohya=("lora_unet_", KOHYA),
        onetrainer=("transformer.", KOHYA),
        loha=("lora_unet_", LOHA),
        lokr=("lycoris_", LOKR),
        lokr_low=("diffusion_model.", LOKR_LOW),
        dora=("lora_unet_", DORA),
        diff=("diffusion_model.", files.diff),
    ),
    *of(
        "z_image",
        Z_OWN,
        diffusers=("transformer.", PEFT),
        comfy=("diffusion_model.", PEFT),
        bare=("", NAMED),
        kohya=("lora_unet_", KOHYA),
        lokr=("lycoris_", LOKR_LOW),
        dora=("transformer.", DORA),
    ),
    *of(
        "z_image",
        Z_COMFY,
        fused=("diffusion_model.", KOHYA),
        fused_kohya=("lora_unet_", KOHYA),
        fused_diff=("diffusion_model.", files.diff),
        fused_lokr=("diffusion_model.", LOKR),
        fused_loha=("lora_unet_", LOHA),
        fused_dora=("diffusion_model.", DORA),
        fused_bias=("diffusion_model.", files.lora_with_bias("diff_b")),
    ),
    *of(
        "flux2",
        FLUX2_DIFFUSERS,
        diffusers=("transformer.", PEFT),
        bare=("", NAMED),
        peft=("base_model.model.", PEFT),
        onetrainer=("transformer.", KOHYA),
        onetrainer_kohya=("lora_transformer_", KOHYA),
        loha=("lora_unet_", LOHA),
        lokr=("lycoris_", LOKR_LOW),
        peft_dora=("base_model.model.", PEFT_DORA),
        diff=("diffusion_model.", files.diff),
    ),
    *of(
        "flux2",
        FLUX2_BFL,
        comfy=("diffusion_model.", PEFT),
        bfl=("", PEFT),
        kohya=("lora_unet_", KOHYA),
        loha_bfl=("diffusion_model.", LOHA),
        lokr_bfl=("diffusion_model.", LOKR),
        dora_columns=("lora_unet_", DORA_COLUMNS),
    ),
]


@pytest.fixture(scope="module", name="built")
def builder() -> Iterator[Callable[[str], Any]]:
    """A toy's transformer by architecture; each is built once, and worn by nobody between two tests."""
    toys = {toy.name: toy for toy in toys_pictures.TOYS}
    names = {"flux1": "flux1-dev", "qwen": "qwen-image", "z_image": "z-image"}
    with ExitStack() as stack:

        @cache
        def build(architecture: str) -> Any:
            mx.random.seed(3)
            if architecture == "flux2":
                from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer

                from tests.support.engine_toy import TRANSFORMER

                transformer = Flux2Transformer(**TRANSFORMER)
            else:
                stack.enter_context(toys[names[architecture]].in_place())
                transformer = toys[names[architecture]].parts()["transformer"]
            mx.eval(transformer.parameters())
            return transformer

        yield build


def modules_of(names: Names) -> dict[str, tuple[tuple[str, ...], bool]]:
    """With whether the halves are swapped."""
    found = {}
    for layer, modules in names.items():
        paths = (modules,) if isinstance(modules, str) else modules
        found[layer] = tuple(path.strip("<>") for path in paths), paths[0].startswith("<")
    return found


def array(value: Any) -> Array:
    return np.array(value.astype(mx.float32)).astype(np.float64)


def layer_of(transformer: Any, path: str) -> Any:
    from mflux.models.common.lora.mapping.lora_loader import LoRALoader

    return LoRALoader._get_target_module(transformer, path)


def made_for(layout: Layout, transformer: Any) -> dict[str, Made]:
    random = np.random.default_rng(5)
    found = {}
    for layer, (paths, _) in modules_of(layout.names).items():
        weights = [array(layer_of(transformer, path).weight) for path in paths]
        found[layer] = layout.style(sum(len(weight) for weight in weights), weights[0].shape[1], random)
    return found


def through(layer: Any, x: Array) -> Array:
    return array(layer(mx.array(x.astype(np.float32))))


Change = tuple[tuple[str, ...], bool, Made, float]


def baked_all(transformer: Any, changes: list[Change]) -> dict[str, tuple[Array, Array]]:
    return {path: pair for change in changes for path, pair in baked(transformer, *change).items()}


def baked(
    transformer: Any, paths: tuple[str, ...], patched: bool, made: Made, scale: float
) -> dict[str, tuple[Array, Array]]:
    """Weight and bias of each module as the file changes them, by hand."""
    layers = [layer_of(transformer, path) for path in paths]
    before = np.concatenate([array(layer.weight) for layer in layers])
    bias = np.concatenate(
        [array(layer.bias) if "bias" in layer else np.zeros(layer.weight.shape[0]) for layer in layers]
    )
    half = len(before) // 2
    if patched:
        before, bias = np.roll(before, half, 0), np.roll(bias, half)
    after = before + scale * (made.weight(before) - before)
    bias = bias + scale * made.bias
    if patched:
        after, bias = np.roll(after, half, 0), np.roll(bias, half)
    ends = np.cumsum([layer.weight.shape[0] for layer in layers])[:-1]
    return dict(zip(paths, zip(np.split(after, ends), np.split(bias, ends), strict=True), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lora_file_changes_model_same_as_equal_weight_delta(
    layout: Layout, built: Callable[[str], Any], tmp_path: Path
) -> None:
    from engine.pipelines.common.lora_stack import LoraStack, LoraUse

    transformer, random = built(layout.family), np.random.default_rng(6)
    made, file = made_for(layout, transformer), tmp_path / "one.safetensors"
    files.save(file, made, layout.prefix)
    modules = modules_of(layout.names)
    wanted = {
        scale: baked_all(
            transformer, [(paths, patched, made[layer], scale) for layer, (paths, patched) in modules.items()]
        )
        for scale in (1.0, -0.5)
    }
    inputs = {path: random.normal(size=(3, weight.shape[1])) for path, (weight, _) in wanted[1.0].items()}
    bare = {path: through(layer_of(transformer, path), x) for path, x in inputs.items()}
    lora_stack = LoraStack(transformer, layout.family)
    try:
        for scale in wanted:
            lora_stack.apply((LoraUse(str(file), scale),))
            for path, (weight, bias) in wanted[scale].items():
                got, right = through(layer_of(transformer, path), inputs[path]), inputs[path] @ weight.T + bias
                assert np.abs(got - right).max() <= TOLERANCE * np.abs(right).max(), path
                assert np.abs(got - bare[path]).max() > 10 * TOLERANCE * np.abs(right).max(), path
    finally:
        lora_stack.apply(())
    for path, x in inputs.items():
        assert np.array_equal(through(layer_of(transformer, path), x), bare[path]), path
