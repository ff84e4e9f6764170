"""Layer names of LoRA files on Stable Diffusion: every layout leads to the module that it was trained for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.lora_layouts import STANDARD, Module, Table, key_of, read, sheets, stable_diffusion_table
from engine.lora_layouts.stable_diffusion_modules import Sizes, TextSizes, UNetSizes, modules_of
from tests.support.stable_diffusion_tensors import TOY_SIZES, Family, ToyTensor, toy_tensors

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "sdxl_refiner")
Shapes = dict[str, tuple[int, ...]]


def layers(family: Family, part: str = "") -> Iterator[tuple[str, ToyTensor]]:
    """Layers of a toy that LoRAs can change, by the path of their module."""
    for tensor in toy_tensors(family):
        is_layer = tensor.name.endswith(".weight") and "embeddings." not in tensor.name
        if is_layer and tensor.part != "vae" and tensor.part.startswith(part):
            yield f"{tensor.part}.{tensor.name.removesuffix('.weight')}", tensor


def module(tensor: ToyTensor, biased: frozenset[str]) -> Module:
    outputs, inputs, *kernel = (*tensor.shape, None) if len(tensor.shape) == 1 else tensor.shape
    assert outputs is not None
    return Module(outputs, inputs, f"{tensor.part}.{tensor.name}"[:-7] in biased, kernel[0] or 1 if kernel else 1)


def toy_modules(family: Family) -> dict[str, Module]:
    biased = frozenset(f"{one.part}.{one.name}"[:-5] for one in toy_tensors(family) if one.name.endswith(".bias"))
    return {path: module(tensor, biased) for path, tensor in layers(family)}


def table(family: Family) -> Table:
    return stable_diffusion_table(toy_modules(family))


def found(table: Table, layer: str) -> str | None:
    key = key_of(f"{layer}.lora_down.weight")
    row = None if key is None else table.row_of(key.layer)
    return None if row is None else row.modules[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_modules_follow_from_the_sizes_of_a_model(family: Family) -> None:
    toy = TOY_SIZES[family]
    unet = UNetSizes(toy.channels, toy.depths, toy.mid_depth, toy.context, toy.added)
    texts = {text.part: TextSizes(text.width, text.layers, text.projection) for text in toy.texts}
    assert modules_of(Sizes(unet, texts)) == toy_modules(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_kohya_names_of_diffusers_and_ldm_lead_to_the_module(family: Family) -> None:
    there = table(family)
    for path, tensor in layers(family, "unet"):
        original = tensor.original.removesuffix(".weight").removeprefix("model.diffusion_model.")
        for name in (path.removeprefix("unet."), original):
            kohya = f"lora_unet_{name.replace('.', '_')}"
            assert found(there, kohya) == path, kohya
            assert found(there, f"diffusion_model.{name}") == path, name
            assert found(there, f"unet.{name}") == path, name


@pytest.mark.parametrize(
    ("family", "prefixes"),
    [
        ("sd1", {"text_encoder": ("lora_te_", "lora_te1_", "text_encoder.")}),
        ("sd2", {"text_encoder": ("lora_te_", "lora_te1_", "text_encoder.")}),
        (
            "sdxl",
            {
                "text_encoder": ("lora_te1_", "text_encoder.", "text_encoders.clip_l.transformer."),
                "text_encoder_2": ("lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer."),
            },
        ),
        ("sdxl_refiner", {"text_encoder_2": ("lora_te2_", "text_encoder_2.")}),
    ],
)
def test_lora_names_of_text_encoders_lead_to_the_module(family: Family, prefixes: dict[str, tuple[str, ...]]) -> None:
    there = table(family)
    for path, tensor in layers(family, "text_encoder"):
        name = tensor.name.removesuffix(".weight")
        for prefix in prefixes[tensor.part]:
            for spelled in (name, name.removeprefix("text_model.")):
                layer = prefix + (spelled.replace(".", "_") if prefix.endswith("_") else spelled)
                assert found(there, layer) == path, layer


def test_lora_names_of_old_diffusers_versions_lead_to_the_module() -> None:
    there = table("sd1")
    block = "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2"
    text = "text_encoder.text_model.encoder.layers.1.self_attn"
    names = {
        f"{block}.processor.to_k_lora.down.weight": f"{block}.to_k",
        f"{block}.processor.to_out_lora.up.weight": f"{block}.to_out.0",
        f"{text}.to_q_lora.down.weight": f"{text}.q_proj",
        f"{text}.to_out_lora.up.weight": f"{text}.out_proj",
        f"{text}.q_proj.lora_linear_layer.down.weight": f"{text}.q_proj",
        f"{text}.k_proj.lora_A.default.weight": f"{text}.k_proj",
        f"base_model.model.{block.removeprefix('unet.')}.to_v.lora_B.weight": f"{block}.to_v",
    }
    for name, path in names.items():
        key = key_of(name)
        assert key is not None, name
        row = there.row_of(key.layer)
        assert row is not None, name
        assert row.modules == (path,), name


def test_lora_layer_counts_of_published_models_are_those_of_their_trainers() -> None:
    """Layers that sd-scripts reports when it trains: 192 and 72 for SD 1.5, 722, 72 and 192 for SDXL."""
    for family, counts in {"sd1": (192, 72), "sdxl": (722, 72, 192)}.items():
        assert trained(family) == counts


def trained(family: str) -> tuple[int, ...]:
    modules = modules_of(STANDARD[family])
    attention = (".proj_in", ".proj_out", ".to_q", ".to_k", ".to_v", ".to_out.0", ".ff.net.0.proj", ".ff.net.2")
    unet = sum(".attentions." in path and path.endswith(attention) for path in modules if path.startswith("unet."))
    texts = [
        sum(path.startswith(f"{network}.") and (".self_attn." in path or ".mlp." in path) for path in modules)
        for network in STANDARD[family].text_encoders
    ]
    return unet, *texts


def pair(layer: str, outputs: int, inputs: int, *kernel: int) -> Shapes:
    down, up = (8, inputs, *kernel), (outputs, 8, *(1 for _ in kernel))
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.alpha": ()}


CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
POINT = "lora_unet_down_blocks_0_attentions_0_proj_in"
FIRST = "lora_unet_conv_in"
FITTING: dict[str, Shapes] = {
    "convolution": pair(CONV, 320, 320, 3, 3),
    "flat convolution": pair(CONV, 320, 320 * 9),
    "matrix for 1x1 convolution": pair(POINT, 320, 320),
    "1x1 kernel for linear layer": pair(LINEAR, 320, 320, 1, 1),
    "core": {
        f"{CONV}.lora_down.weight": (8, 320, 1, 1),
        f"{CONV}.lora_mid.weight": (8, 8, 3, 3),
        f"{CONV}.lora_up.weight": (320, 8, 1, 1),
    },
    "loha": {
        **{f"{CONV}.hada_w{half}_a": (320, 4) for half in (1, 2)},
        **{f"{CONV}.hada_w{half}_b": (4, 320 * 9) for half in (1, 2)},
    },
    "loha with core": {
        **{f"{CONV}.hada_w{half}_a": (4, 320) for half in (1, 2)},
        **{f"{CONV}.hada_w{half}_b": (4, 320) for half in (1, 2)},
        **{f"{CONV}.hada_t{half}": (4, 4, 3, 3) for half in (1, 2)},
    },
    "lokr": {f"{CONV}.lokr_w1": (16, 16), f"{CONV}.lokr_w2": (20, 20, 3, 3)},
    "factored lokr": {
        f"{CONV}.lokr_w1": (16, 16),
        f"{CONV}.lokr_w2_a": (20, 4),
        f"{CONV}.lokr_w2_b": (4, 20 * 9),
    },
    "diff": {f"{CONV}.diff": (320, 320, 3, 3), f"{CONV}.diff_b": (320,)},
    "dora of rows": {**pair(CONV, 320, 320, 3, 3), f"{CONV}.dora_scale": (320, 1, 1, 1)},
    "dora of columns": {**pair(FIRST, 320, 4, 3, 3), f"{FIRST}.dora_scale": (1, 4, 1, 1)},
    "ia3": {f"{CONV}.weight": (1, 320, 1, 1), f"{CONV}.on_input": ()},
    "norm": {f"{CONV.replace('conv1', 'norm1')}.{part}": (320,) for part in ("w_norm", "b_norm")},
}
UNFIT: dict[str, tuple[Shapes, str]] = {
    "another kernel": (pair(CONV, 320, 320, 5, 5), "has other sizes at unet.down_blocks.0.resnets.0.conv1"),
    "kernel of a point": (pair(CONV, 320, 320, 1, 1), "has other sizes at unet.down_blocks.0.resnets.0.conv1"),
    "kernel on a linear layer": (
        pair(LINEAR, 320, 320, 3, 3),
        "has other sizes at unet.down_blocks.0.attentions.0.transformer_blocks.0.attn...",
    ),
    "half a core": (
        {f"{CONV}.lora_down.weight": (8, 320, 1, 1), f"{CONV}.lora_mid.weight": (8, 8, 3, 3)},
        "lacks up of unet.down_blocks.0.resnets.0.conv1",
    ),
    "core of another rank": (
        {**pair(CONV, 320, 320, 1, 1), f"{CONV}.lora_mid.weight": (8, 4, 3, 3)},
        "has other sizes at unet.down_blocks.0.resnets.0.conv1",
    ),
    "empty core": (
        {**pair(CONV, 320, 320, 1, 1), f"{CONV}.lora_mid.weight": (8, 8, 0, 0)},
        "has other sizes at unet.down_blocks.0.resnets.0.conv1",
    ),
    "core of a huge rank": (
        {f"{CONV}.lora_down.weight": (4000, 320), f"{CONV}.lora_mid.weight": (4000, 4000, 3, 3)}
        | {f"{CONV}.lora_up.weight": (320, 4000)},
        "has a core of rank 4000 at unet.down_blocks.0.resnets.0.conv1, above 2048",
    ),
    "ia3 without factors": ({f"{CONV}.on_input": ()}, "lacks ia3 of unet.down_blocks.0.resnets.0.conv1"),
    "ia3 of another size": (
        {f"{CONV}.weight": (7,), f"{CONV}.on_input": ()},
        "has other sizes at unet.down_blocks.0.resnets.0.conv1",
    ),
    "oft": (
        {"oft_unet_down_blocks_0_attentions_0_proj_in.oft_blocks": (4, 80, 80)},
        "uses OFT, which cannot be applied here",
    ),
    "glora": ({f"{LINEAR}.a1.weight": (4, 320)}, "uses GLoRA, which cannot be applied here"),
    "both names of a module": (
        pair(LINEAR, 320, 320) | pair("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", 320, 320),
        "names unet.down_blocks.0.attentions.0.transformer_blocks.0.attn... twice",
    ),
}


@pytest.mark.parametrize("name", FITTING)
def test_lora_methods_fit_convolutions_linear_layers_and_norms(name: str) -> None:
    reading = read(FITTING[name], sheets()["sd1"])
    assert (reading.unfit, reading.used, reading.total) == (None, len(FITTING[name]), len(FITTING[name]))


@pytest.mark.parametrize("name", UNFIT)
def test_lora_that_cannot_be_applied_is_refused_with_the_reason(name: str) -> None:
    shapes, reason = UNFIT[name]
    assert read(shapes, sheets()["sd1"]).unfit == reason


def test_lora_of_four_channels_fits_the_first_layer_of_an_inpainting_model() -> None:
    inpainting = UNetSizes((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, inputs=9)
    there = stable_diffusion_table(modules_of(Sizes(inpainting, {})))
    for inputs in (4, 9):
        assert read(pair(FIRST, 320, inputs, 3, 3), there).unfit is None
    assert read(pair(FIRST, 320, 5, 3, 3), there).unfit == "has other sizes at unet.conv_in"
    decomposed = {**pair(FIRST, 320, 4, 3, 3), f"{FIRST}.dora_scale": (1, 4, 1, 1)}
    assert read(decomposed, there).unfit == "has other sizes at unet.conv_in"
    assert read(pair(FIRST, 320, 9, 3, 3), sheets()["sd1"]).unfit == "has other sizes at unet.conv_in"


def test_lora_tensors_that_are_left_out_are_told_by_their_kind() -> None:
    shapes = {
        **pair(LINEAR, 320, 320),
        "bundle_emb.style.string_to_param.*": (4, 768),
        "bundle_emb.face.emb_params": (2, 768),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": (),
    }
    reading = read(shapes, sheets()["sd1"])
    assert (reading.used, reading.total) == (3, 6)
    assert reading.rest == (
        "2 are of embeddings in the file, such as 'style' and 1 belong to no layer of this model, such as "
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"
    )
