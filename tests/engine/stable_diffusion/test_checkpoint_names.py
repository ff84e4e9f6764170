"""Parameters of the networks are found under all names that files give them; sizes follow from names and shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoints.description import describe, describe_vae
from engine.checkpoints.kinds import NotACheckpoint
from engine.checkpoints.sizes import unet_architecture, vae_architecture
from engine.checkpoints.sources import Source
from engine.checkpoints.text_names import clip_sources, open_clip_sources
from engine.checkpoints.unet_names import unet_sources
from engine.checkpoints.vae_names import vae_sources
from tests.support.stable_diffusion import original_arrays, toy_checkpoint, toy_vae, write_safetensors
from tests.support.stable_diffusion_tensors import TOY_SIZES, Family, toy_tensors

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "sdxl_refiner")
UNET = "model.diffusion_model."


def names_of(family: Family) -> list[str]:
    return [tensor.original for tensor in toy_tensors(family)]


@pytest.mark.parametrize("family", FAMILIES)
def test_unet_names_of_a_file_are_those_of_diffusers(family: Family) -> None:
    wanted = {tensor.name: Source(tensor.original) for tensor in toy_tensors(family) if tensor.part == "unet"}
    assert unet_sources(names_of(family), UNET) == wanted


def test_unet_names_without_prefix_are_found() -> None:
    bare = [name.removeprefix(UNET) for name in names_of("sd1") if name.startswith(UNET)]
    assert unet_sources(bare, "")["conv_in.weight"] == Source("input_blocks.0.0.weight")


def test_unet_without_attention_in_its_middle_has_one_residual_block_there() -> None:
    """SSD-1B and its kin."""
    dropped = (f"{UNET}middle_block.1.", f"{UNET}middle_block.2.", f"{UNET}input_blocks.7.1.transformer_blocks.1.")
    arrays = original_arrays(toy_tensors("sdxl"), 0)
    names = [name for name in arrays if not name.startswith(dropped)]
    shapes = {path: arrays[source.name].shape for path, source in unet_sources(names, UNET).items()}
    architecture = unet_architecture(shapes)
    assert (architecture.middle.resnets, architecture.middle.depth) == (1, 0)
    assert [level.depths for level in architecture.down] == [(0, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    "name",
    [
        "position_net.linears.0.weight",
        "input_blocks.1.0.in_layers.1.weight",
        "middle_block.3.in_layers.0.weight",
        "time_embed.cond_proj.weight",
    ],
)
def test_unet_with_an_unknown_layer_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(NotACheckpoint) as refused:
        unet_sources([*names_of("sd1"), UNET + name], UNET)
    assert name in refused.value.reason


def test_unknown_layer_with_an_unprintable_name_is_refused_without_it() -> None:
    with pytest.raises(NotACheckpoint) as refused:
        unet_sources([*names_of("sd1"), f"{UNET}\x1b[31m.weight"], UNET)
    assert "\x1b" not in refused.value.reason


@pytest.mark.parametrize("missing", ["input_blocks.2.", "output_blocks.0.", "output_blocks."])
def test_unet_with_a_missing_block_is_refused(missing: str) -> None:
    names = [name for name in names_of("sd1") if not name.startswith(UNET + missing)]
    with pytest.raises(NotACheckpoint, match="order"):
        unet_sources(names, UNET)


def test_clip_names_are_found_with_and_without_their_root() -> None:
    prefix = "cond_stage_model.transformer."
    new = [name for name in names_of("sd1") if name.startswith(prefix)]
    old = [name.replace("text_model.", "") for name in new]
    assert clip_sources(new, prefix).keys() == clip_sources(old, prefix).keys()
    assert "text_model.encoder.layers.2.mlp.fc1.weight" in clip_sources(old, prefix)


def test_clip_positions_are_no_parameter() -> None:
    assert clip_sources(["text_model.embeddings.position_ids", "logit_scale"], "") == {}


def test_open_clip_tensors_are_split_and_transposed() -> None:
    sources = open_clip_sources(names_of("sdxl"), "conditioner.embedders.1.model.")
    layer = "text_model.encoder.layers.0.self_attn"
    rows = np.arange(18).reshape(6, 3)
    assert [sources[f"{layer}.{one}_proj.weight"].taken_from(rows).tolist()[0][0] for one in "qkv"] == [0, 6, 12]
    assert sources[f"{layer}.q_proj.weight"].shape_in((6, 3)) == (2, 3)
    projection = sources["text_projection.weight"]
    assert projection.taken_from(rows).shape == projection.shape_in((6, 3)) == (3, 6)


def test_vae_names_are_found_with_and_without_their_prefix(tmp_path: Path) -> None:
    wanted = {tensor.name for tensor in toy_tensors("sd1") if tensor.part == "vae"}
    for prefix in (False, True):
        assert describe_vae(toy_vae(tmp_path, prefix=prefix)).sources.keys() == wanted


def test_vae_names_of_diffusers_are_kept_and_its_old_ones_renewed() -> None:
    old = [f"encoder.mid_block.attentions.0.{name}.weight" for name in ("query", "key", "value", "proj_attn")]
    new = ("to_q", "to_k", "to_v", "to_out.0")
    assert list(vae_sources(old)) == [f"encoder.mid_block.attentions.0.{name}.weight" for name in new]


def test_vae_losses_and_averages_are_no_parameters() -> None:
    names = ["loss.discriminator.main.0.weight", "model_ema.decay", "decoder.conv_in.weight", "decoder.conv_in.num"]
    assert vae_sources(names) == {"decoder.conv_in.weight": Source("decoder.conv_in.weight")}


def test_file_of_sd2_is_read_without_its_last_text_layer(tmp_path: Path) -> None:
    text = describe(toy_checkpoint(tmp_path, "sd2")).text_encoders["text_encoder"]
    assert text.architecture.layers == TOY_SIZES["sd2"].texts[0].layers - 1
    assert text.architecture.activation == "gelu"


def test_file_of_sd2_in_the_form_of_sgm_is_described(tmp_path: Path) -> None:
    arrays = original_arrays(toy_tensors("sd2"), 0)
    renamed = {
        name.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): array
        for name, array in arrays.items()
    }
    write_safetensors(tmp_path / "sgm.safetensors", renamed, "float16")
    description = describe(tmp_path / "sgm.safetensors")
    assert description.checkpoint.family == "sd2"
    assert description.text_encoders["text_encoder"].architecture.layers == 2


@pytest.fixture(scope="module")
def sd1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("sd1"), "sd1", form="folder")


@contextmanager
def replaced(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize(
    ("part", "values", "named"),
    [
        ("unet", {"attention_head_dim": [3, 3, 3, 3]}, "heads"),
        ("unet", {"attention_head_dim": 0}, "heads"),
        ("unet", {"attention_head_dim": [8]}, "heads"),
        ("unet", {"norm_num_groups": 48}, "groups"),
        ("unet", {"norm_num_groups": "32"}, "norm_num_groups"),
        ("unet", {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
        ("unet", {"class_embed_type": "projection"}, "class_embed_type"),
        ("text_encoder", {"hidden_act": "relu"}, "hidden_act"),
        ("text_encoder", {"num_attention_heads": 5}, "heads"),
        ("vae", {"mid_block_add_attention": False}, "mid_block_add_attention"),
        ("vae", {"scaling_factor": "0.2"}, "scaling_factor"),
        ("vae", {"shift_factor": 0.1}, "shifts"),
    ],
)
def test_folder_whose_configuration_cannot_be_honoured_is_refused(
    part: str, values: dict[str, object], named: str, sd1_folder: Path
) -> None:
    file = sd1_folder / part / "config.json"
    changed = json.dumps(json.loads(file.read_text()) | values).encode()
    with replaced(file, changed), pytest.raises(NotACheckpoint, match=named):
        describe(sd1_folder)


def test_vae_with_numbers_of_levels_out_of_order_is_refused() -> None:
    with pytest.raises(NotACheckpoint, match="missing"):
        vae_architecture({"encoder.down_blocks.1.resnets.0.conv1.weight": (32, 32, 3, 3)})


def test_folder_with_foreign_bits_is_refused(sd1_folder: Path) -> None:
    file = sd1_folder / "unet" / "diffusion_pytorch_model.safetensors"
    write_safetensors(file, {"conv_in.weight": np.zeros(1, np.float32)}, "float16", {"quantization_level": "7"})
    with pytest.raises(NotACheckpoint, match="quantised"):
        describe(sd1_folder)
