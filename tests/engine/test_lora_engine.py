"""LoRAs on a model: several at once, on quantised layers, in whole pictures; every spelling that mflux itself knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.drawing.base import BackendError
from engine.lora_layouts import STANDARD, Sheet, family_of, key_of, sheets
from engine.protocol import Lora
from tests.engine.test_lora_layouts import DORA, KOHYA, LOHA, LOHA_DORA, PEFT, TOLERANCE, array, layer_of, through
from tests.support import lora_files as files
from tests.support import toys_pictures
from tests.support.engine import SPECS
from tests.support.engine_studio import Studio, differs

mx = pytest.importorskip("mlx.core")

LAYER = "transformer_blocks.0.attn.to_q"
FUSED = "single_transformer_blocks.0.attn.to_qkv_mlp_proj"


@pytest.fixture
def transformer() -> Any:
    from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer

    from tests.support.engine_toy import TRANSFORMER

    mx.random.seed(3)
    made = Flux2Transformer(**TRANSFORMER)
    mx.eval(made.parameters())
    return made


def worn(transformer: Any, *loras: tuple[Path, float]) -> Any:
    from engine.pipelines.common.lora_stack import LoraStack, LoraUse

    lora_stack = LoraStack(transformer, "flux2")
    lora_stack.apply(tuple(LoraUse(str(file), scale) for file, scale in loras))
    return lora_stack


def close(got: Any, right: Any) -> bool:
    return bool(np.abs(got - right).max() <= TOLERANCE * np.abs(right).max())


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_lora_files_add_up_in_order_on_any_layer_kind(transformer: Any, bits: int | None, tmp_path: Path) -> None:
    from mlx import nn

    if bits is not None:
        nn.quantize(transformer, group_size=64, bits=bits)
    layer = layer_of(transformer, LAYER)
    from mflux.models.common.lora.layer.dense_weight import dense_weight

    weight, random = array(dense_weight(layer)), np.random.default_rng(1)
    loras = []
    for number, (style, scale) in enumerate(((KOHYA, 0.5), (DORA, 1.0), (LOHA, -1.0), (LOHA_DORA, 0.75))):
        made = style(*weight.shape, random)
        file = tmp_path / f"{number}.safetensors"
        files.save(file, {LAYER: made}, "transformer.")
        weight = weight + scale * (made.weight(weight) - weight)
        loras.append((file, scale))
    x = random.normal(size=(3, weight.shape[1]))
    before = through(layer, x)
    lora_stack = worn(transformer, *loras)
    assert close(through(layer_of(transformer, LAYER), x), x @ weight.T)
    lora_stack.apply(())
    assert layer_of(transformer, LAYER) is layer
    assert np.array_equal(through(layer, x), before)


def test_lora_factored_weights_are_not_stored_dense(transformer: Any, tmp_path: Path) -> None:
    from mlx.utils import tree_flatten

    size = array(layer_of(transformer, FUSED).weight).shape
    files.save(tmp_path / "x.safetensors", {FUSED: LOHA_DORA(*size, np.random.default_rng(1))})
    before = sum(value.size for _, value in tree_flatten(transformer.parameters()))
    lora_stack = worn(transformer, (tmp_path / "x.safetensors", 1.0))
    more = sum(value.size for _, value in tree_flatten(transformer.parameters())) - before
    assert more == 2 * files.RANK * sum(size) + size[0]
    lora_stack.apply(())
    assert sum(value.size for _, value in tree_flatten(transformer.parameters())) == before


def test_lora_norm_layers_are_changed_and_restored(transformer: Any, tmp_path: Path) -> None:
    norm = layer_of(transformer, "transformer_blocks.0.attn.norm_q")
    before, delta = array(norm.weight), np.linspace(-1, 1, norm.weight.size)
    for name in ("double_blocks.0.img_attn.norm.query_norm", "transformer_blocks.0.attn.norm_q"):
        for end in ("diff", "w_norm"):
            made = files.Made({end: delta}, lambda base: base)
            files.save(tmp_path / "x.safetensors", {name: made}, "diffusion_model.")
            lora_stack = worn(transformer, (tmp_path / "x.safetensors", 0.5))
            assert close(array(norm.weight), before + 0.5 * delta)
            lora_stack.apply(())
            assert np.array_equal(array(norm.weight), before)


def test_lora_file_that_does_not_fit_leaves_model_unmodified(transformer: Any, tmp_path: Path) -> None:
    from engine.pipelines.common.lora_stack import LoraFault

    size = array(layer_of(transformer, LAYER).weight).shape
    made = PEFT(*size, np.random.default_rng(1))
    files.save(tmp_path / "good.safetensors", {LAYER: made})
    files.save(tmp_path / "wide.safetensors", {LAYER: PEFT(size[0] + 64, size[1], np.random.default_rng(1))})
    layer = layer_of(transformer, LAYER)
    with pytest.raises(LoraFault, match=f"has other sizes at {LAYER}"):
        worn(transformer, (tmp_path / "good.safetensors", 1.0), (tmp_path / "wide.safetensors", 1.0))
    assert layer_of(transformer, LAYER) is layer


@pytest.mark.parametrize(
    ("name", "geometry"), [("flux1-dev", "dev"), ("qwen-image", "qwen-image"), ("z-image", "z-image")]
)
def test_lora_on_every_layer_draws_same_image_as_modified_weights(name: str, geometry: str, tmp_path: Path) -> None:
    """Whatever the model asks its layers for, what is added is in it; and a layer that was forgotten shows."""
    mx.disable_compile()
    toy = next(toy for toy in toys_pictures.TOYS if toy.name == name)
    with toy.in_place():
        toy.save(tmp_path / "model")
        studio = Studio(SPECS[name], tmp_path / "model", inputs={}, **toy.usual)
        studio.load()
        bare = studio.draw()
        layers = dict(linears(studio))
        random = np.random.default_rng(2)
        made = {path: KOHYA(*layer.weight.shape, random) for path, layer in layers.items()}
        files.save(tmp_path / "x.safetensors", made)
        lora = {"inputs": {"x": str(tmp_path / "x.safetensors")}, "loras": (Lora(name="x", scale=0.02),)}
        drawn = studio.draw(None, **lora)
        studio.draw()
        for path, layer in layers.items():
            weight = array(layer.weight)
            layer.weight = mx.array(weight + 0.02 * (made[path].weight(weight) - weight)).astype(layer.weight.dtype)
        assert differs(bare, drawn, by=8)
        assert not differs(studio.draw(), drawn, by=2)
    mx.enable_compile()


def linears(studio: Studio) -> Iterator[tuple[str, Any]]:
    from mlx import nn

    transformer = studio.backend._pipeline._pipeline.transformer  # type: ignore[union-attr]
    for path, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            yield path, module


def mappings() -> Mapping[str, Any]:
    from tools.lora_layouts import architecture_of

    found = {geometry: architecture_of(geometry) for geometry in sheets() if geometry not in STANDARD}
    return {geometry: one.mapping for geometry, one in found.items() if one is not None}


def test_lora_layer_spellings_known_to_mflux_are_read_alike() -> None:
    checked = 0
    for geometry, mapping in mappings().items():
        table = sheets()[geometry]
        for target in mapping.get_mapping():
            path = target.model_path.replace("{block}", "0")
            if table.sheet.find(path) is None:
                continue
            patterns = (
                *target.possible_up_patterns,
                *target.possible_down_patterns,
                *target.possible_alpha_patterns,
                *target.possible_lokr_w1_patterns,
                *target.possible_lokr_w2_patterns,
                *target.possible_dora_scale_patterns,
                *target.possible_diff_patterns,
                *target.possible_diff_b_patterns,
            )
            for pattern in patterns:
                key = key_of(pattern.replace("{block}", "0"))
                assert key is not None, pattern
                row = table.row_of(key.layer)
                assert row is not None, pattern
                assert path in row.modules, pattern
                checked += 1
    assert checked > 5000


def test_lora_layers_of_own_models_are_not_mistaken_for_another_family() -> None:
    for table in {id(table): table for family, table in sheets().items() if family not in STANDARD}.values():
        for name in table:
            for layer in (name.replace("#", "0"), f"lora_unet_{name.replace('#', '1')}", f"diffusion_model.{name}"):
                assert family_of({}, [layer]) is None, layer


def test_lora_layer_sheet_finds_existing_blocks_only() -> None:
    sheet = sheets()["fibo2"].sheet
    assert sheet.find("layers.43.attention.to_q") is not None
    assert sheet.find("layers.44.attention.to_q") is None
    assert sheet.find("layers.1.cross_attention.to_q") is None or sheet.find("layers.2.cross_attention.to_q") is None
    assert Sheet.unpack(sheet.pack()).pack() == sheet.pack()


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_lora_integer_weights_are_refused(transformer: Any, dtype: str, tmp_path: Path) -> None:
    from engine.pipelines.common.lora_stack import LoraFault

    arrays = {f"{LAYER}.lora_A.weight": mx.ones((4, 64)), f"{LAYER}.lora_B.weight": mx.ones((64, 4))}
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {k: v.astype(getattr(mx, dtype)) for k, v in arrays.items()})
    with pytest.raises(LoraFault, match="holds whole numbers"):
        worn(transformer, (tmp_path / "x.safetensors", 1.0))


def test_lora_error_names_the_lora(tmp_path: Path) -> None:
    from tests.support.engine_toy import save_toy_lora, save_toy_model

    save_toy_model(tmp_path / "model")
    studio = Studio(SPECS["flux2-klein-4b"], tmp_path / "model", inputs={})
    from unittest.mock import patch

    from engine import pipelines as families
    from engine.pipelines.flux2 import load_tiny

    with patch.object(families, "load", load_tiny):
        studio.load()
    save_toy_lora(tmp_path / "wide.safetensors", num_attention_heads=4)
    with pytest.raises(BackendError) as refused:
        studio.draw(None, {"style/wide": str(tmp_path / "wide.safetensors")}, loras=(Lora(name="style/wide"),))
    sentence = "LoRA 'style/wide' cannot be used: it has other sizes at single_transformer_blocks.0.attn.to_out."
    assert (refused.value.code, refused.value.message) == ("bad_input", sentence)
