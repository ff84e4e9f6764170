"""Checkpoints in every form load into the same networks, and are saved and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from engine.checkpoints.folders import recognise_folder
from engine.checkpoints.kinds import NotACheckpoint
from engine.pipelines.stable_diffusion import loading
from engine.pipelines.stable_diffusion.arrays import arrays_of
from engine.pipelines.stable_diffusion.loading import Parts, load_parts, load_vae
from engine.pipelines.stable_diffusion.networks.vae import Vae
from gateway.models.weights import stored_bits
from tests.support.stable_diffusion import Dtype, original_arrays, toy_checkpoint, toy_vae, write_safetensors
from tests.support.stable_diffusion_tensors import Family, toy_tensors

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "sdxl_refiner")


def parameters(network: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(network.parameters()))


def are_same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = parameters(first), parameters(second)
    pairs = [(array, theirs.get(path)) for path, array in ours.items()]
    return ours.keys() == theirs.keys() and all(
        other is not None and array.dtype == other.dtype and np.array_equal(np.array(array), np.array(other))
        for array, other in pairs
    )


def hold_the_same(first: Parts, second: Parts) -> bool:
    return first.networks.keys() == second.networks.keys() and all(
        are_same(network, second.networks[name]) for name, network in first.networks.items()
    )


@dataclass(frozen=True)
class Loaded:
    path: Path
    parts: Parts


@pytest.fixture(scope="module")
def sd2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("sd2"), "sd2")


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = toy_checkpoint(tmp_path_factory.mktemp("sd1"), "sd1")
    return Loaded(path, load_parts(path))


@pytest.mark.parametrize("family", FAMILIES)
def test_file_and_folder_load_into_the_same_networks(family: Family, tmp_path: Path) -> None:
    file, folder = (load_parts(toy_checkpoint(tmp_path, family, form=form)) for form in ("file", "folder"))
    assert hold_the_same(file, folder)
    assert file.architecture == folder.architecture
    assert (file.family, file.prediction, file.bits) == (family, "epsilon", None)
    assert file.scale_factor == folder.scale_factor == (0.13025 if family.startswith("sdxl") else 0.18215)


def test_parts_tell_v_prediction(tmp_path: Path) -> None:
    assert load_parts(toy_checkpoint(tmp_path, "sd2", v=True)).prediction == "v_prediction"


@pytest.mark.parametrize("dtype", ["bfloat16", "float8"])
def test_weights_of_every_dtype_are_loaded(dtype: Dtype, sd1: Loaded, tmp_path: Path) -> None:
    parts = load_parts(toy_checkpoint(tmp_path, "sd1", dtype=dtype))
    for name, network in parts.networks.items():
        exact, found = parameters(sd1.parts.networks[name]), parameters(network)
        assert {array.dtype for array in found.values()} == {mx.float32}
        for path in sorted(found)[::20]:
            assert mx.abs(found[path] - exact[path]).max() <= 0.07 * mx.abs(exact[path]).max(), path


def test_networks_but_the_vae_are_float16_on_a_gpu(
    sd1: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "compute_dtype", lambda: mx.float16)
    parts = load_parts(sd1.path)
    assert {array.dtype for array in parameters(parts.unet).values()} == {mx.float16}
    assert {array.dtype for array in parameters(parts.text_encoders[0]).values()} == {mx.float16}
    assert {array.dtype for array in parameters(parts.vae).values()} == {mx.float32}
    latents = mx.zeros((1, 4, 4, 4))
    context = parts.text_encoders[0](mx.array([[49406, 320, 49407]])).last
    assert context.dtype == mx.float16
    assert parts.unet(latents, mx.array([500.0]), context).dtype == mx.float32
    assert parts.vae.decode(latents.astype(mx.float16)).dtype == mx.float32


def test_file_without_vae_needs_a_vae_file(sd1: Loaded, tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path, "sd1", has_vae=False)
    parts = load_parts(path)
    assert are_same(parts.unet, sd1.parts.unet)
    with pytest.raises(NotACheckpoint, match="sd_vae"):
        assert parts.vae
    assert is_toy_vae(load_parts(path, vae=toy_vae(tmp_path)).vae, toy_vae(tmp_path))


def is_toy_vae(vae: Vae, file: Path) -> bool:
    stored = mx.load(str(file))
    assert isinstance(stored, dict)
    return bool(mx.array_equal(vae.decoder.conv_out.bias, stored["decoder.conv_out.bias"]))


def test_folder_without_vae_needs_a_vae_file(tmp_path: Path) -> None:
    folder = toy_checkpoint(tmp_path, "sd1", form="folder")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": [None, None]}))
    (folder / "vae").rename(tmp_path / "elsewhere")
    parts = load_parts(folder)
    with pytest.raises(NotACheckpoint, match="sd_vae"):
        assert parts.vae
    parts.save(tmp_path / "saved")
    assert load_parts(tmp_path / "saved").own_vae is None
    assert is_toy_vae(load_parts(folder, vae=toy_vae(tmp_path)).vae, toy_vae(tmp_path))


def test_vae_file_replaces_the_vae_of_the_checkpoint(sd1: Loaded, tmp_path: Path) -> None:
    plain, prefixed = toy_vae(tmp_path), toy_vae(tmp_path, prefix=True, name="prefixed")
    assert is_toy_vae(load_parts(sd1.path, vae=plain).vae, plain)
    assert are_same(load_vae(plain), load_vae(prefixed))
    assert are_same(load_vae(sd1.path), sd1.parts.vae)


def test_file_that_is_no_vae_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"x": np.zeros(1, np.float32)}, "float32")
    with pytest.raises(NotACheckpoint, match="VAE"):
        load_vae(tmp_path / "x.safetensors")


def test_old_file_without_the_root_of_its_text_encoder_is_loaded(sd1: Loaded, tmp_path: Path) -> None:
    arrays = {name.replace(".text_model.", "."): array for name, array in toy_arrays("sd1").items()}
    write_safetensors(tmp_path / "old.safetensors", arrays, "float16")
    assert hold_the_same(load_parts(tmp_path / "old.safetensors"), sd1.parts)


def toy_arrays(family: Family) -> dict[str, np.ndarray]:
    return original_arrays(toy_tensors(family), 0)


def rewrite(file: Path, arrays: Mapping[str, mx.array], *names: str) -> None:
    """Write a part's weights in several files."""
    file.unlink()
    keys = sorted(arrays)
    for number, name in enumerate(names):
        mx.save_safetensors(str(file.parent / name), {key: arrays[key] for key in keys[number :: len(names)]})


def test_folder_with_shards_variants_and_new_text_names_is_loaded(sd1: Loaded, tmp_path: Path) -> None:
    folder = toy_checkpoint(tmp_path, "sd1", form="folder")
    unet, text = folder / "unet/diffusion_pytorch_model.safetensors", folder / "text_encoder/model.safetensors"
    shards = [f"diffusion_pytorch_model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    arrays = mx.load(str(unet))
    assert isinstance(arrays, dict)
    rewrite(unet, arrays, *shards)
    arrays = mx.load(str(text))
    assert isinstance(arrays, dict)
    renamed = {name.removeprefix("text_model."): array for name, array in arrays.items()}
    rewrite(text, renamed, "model.fp16.safetensors")
    assert hold_the_same(load_parts(folder), sd1.parts)
    (folder / "unet" / shards[1]).unlink()
    with pytest.raises(NotACheckpoint):
        load_parts(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8"])
def test_file_with_an_unread_tensor_of_a_type_unknown_to_mlx_is_read(dtype: Dtype, tmp_path: Path) -> None:
    """Old checkpoints hold the noise of their training, some in float64."""
    arrays = {"a": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    plain, file = tmp_path / "plain.safetensors", tmp_path / "with_float64.safetensors"
    write_safetensors(plain, arrays, dtype)
    write_safetensors(file, {"alphas_cumprod": np.ones(3), **arrays}, dtype)
    with pytest.raises(RuntimeError):
        mx.load(str(file))
    found, wanted = arrays_of([file], arrays), arrays_of([plain], arrays)
    assert found.keys() == wanted.keys()
    assert all(array.dtype == wanted[name].dtype for name, array in found.items())
    assert all(mx.array_equal(array, wanted[name]) for name, array in found.items())


def test_tensor_of_another_size_is_refused_by_its_name(tmp_path: Path) -> None:
    arrays = toy_arrays("sd1")
    arrays["model.diffusion_model.out.2.bias"] = np.zeros(5, np.float32)
    write_safetensors(tmp_path / "odd.safetensors", arrays, "float16")
    with pytest.raises(NotACheckpoint, match=r"conv_out\.bias"):
        load_parts(tmp_path / "odd.safetensors")


def test_missing_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    arrays = toy_arrays("sd1")
    del arrays["first_stage_model.decoder.norm_out.bias"]
    write_safetensors(tmp_path / "cut.safetensors", arrays, "float16")
    with pytest.raises(NotACheckpoint, match=r"VAE is incomplete: decoder\.conv_norm_out\.bias"):
        load_parts(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("family", ["sd1", "sdxl_refiner"])
def test_saved_folder_is_read_again_and_recognised(family: Family, tmp_path: Path) -> None:
    parts = load_parts(toy_checkpoint(tmp_path, family, inpainting=family == "sd1", v=family == "sd1"))
    parts.save(tmp_path / "saved")
    again = load_parts(tmp_path / "saved")
    assert hold_the_same(again, parts)
    assert again.architecture == parts.architecture
    assert (again.prediction, again.scale_factor) == (parts.prediction, parts.scale_factor)
    assert recognise_folder(tmp_path / "saved").inpaints == (family == "sd1")


def test_quantised_parts_are_saved_and_read_again_without_being_told(sd2_file: Path, tmp_path: Path) -> None:
    parts = load_parts(sd2_file, quantize=4)
    parts.save(tmp_path / "saved")
    again = load_parts(tmp_path / "saved")
    assert again.bits == 4 == stored_bits(tmp_path / "saved")
    assert hold_the_same(again, parts)
    assert again.architecture == parts.architecture


def test_quantising_changes_linear_layers_whose_inputs_divide_into_groups(sd2_file: Path) -> None:
    parts = load_parts(sd2_file, quantize=8)
    wide, narrow = parts.unet.down_blocks[1], parts.unet.down_blocks[0]
    assert isinstance(wide.attentions[0].transformer_blocks[0].attn1.to_q, nn.QuantizedLinear)
    assert isinstance(wide.attentions[0].proj_in, nn.QuantizedLinear)
    assert type(narrow.attentions[0].transformer_blocks[0].attn1.to_q) is nn.Linear
    assert type(parts.unet.up_blocks[0].resnets[0].conv_shortcut) is nn.Linear
    assert type(parts.unet.conv_in) is nn.Conv2d
    assert not any(path.endswith(".scales") for path in parameters(parts.vae))
    assert type(parts.text_encoders[0].text_model.embeddings.token_embedding) is nn.Embedding


@pytest.mark.parametrize("bits", [None, 4])
def test_memory_peak_of_loading_is_that_of_the_parts_and_one_layer(bits: int | None, sd2_file: Path) -> None:
    """The largest layer is the table of tokens: as it is stored, and as it is held."""
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    parts = load_parts(sd2_file, quantize=bits)
    held, peak = mx.get_active_memory() - before, mx.get_peak_memory() - before
    arrays = [array for network in parts.networks.values() for array in parameters(network).values()]
    largest = max(array.nbytes for array in arrays)
    assert held < 1.1 * sum(array.nbytes for array in arrays)
    assert peak < held + 1.6 * largest
