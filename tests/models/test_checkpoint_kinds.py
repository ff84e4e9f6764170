"""What a checkpoint is, by names and shapes of tensors or by a folder's configurations; what is refused, and why."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints.folders import recognise_folder, weights_in
from engine.checkpoints.kinds import NotACheckpoint, Part, read_tensor, recognise_file, recognise_tensors
from engine.checkpoints.vaes import recognise_vae
from engine.safetensors import inspect
from tests.support.checkpoint_files import (
    REFINER,
    SD1,
    SD2,
    SDXL,
    UNET,
    V_BIAS,
    VAE,
    Shapes,
    tensors_of,
    write_folder,
    write_header,
)

FIRST = f"{UNET}input_blocks.0.0.weight"


def without(shapes: Shapes, *prefixes: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("shapes", "family", "widths"),
    [
        (SD1, "sd1", (768,)),
        (SD2, "sd2", (1024,)),
        (SDXL, "sdxl", (768, 1280)),
        (REFINER, "sdxl_refiner", (1280,)),
        ({name.replace("cond_stage_model.", "conditioner.embedders.0."): SD2[name] for name in SD2}, "sd2", (1024,)),
        ({name.replace("text_model.", ""): SD1[name] for name in SD1}, "sd1", (768,)),
    ],
)
def test_family_is_recognised_by_names_of_text_encoders(shapes: Shapes, family: str, widths: tuple[int, ...]) -> None:
    found = recognise_tensors(tensors_of(shapes), {})
    assert (found.family, found.text_widths) == (family, widths)
    assert (found.prediction, found.zero_terminal_snr, found.inpaints) == ("epsilon", False, False)


def test_parts_are_measured_and_what_is_not_drawn_with_is_left_out() -> None:
    found = recognise_tensors(tensors_of({**SD1, "model_ema.decay": (1,), "alphas_cumprod": (1000,)}), {})
    assert found.unet == Part(4 * (8 * 4 * 9 + 8 * 64), 8 * 4 * 9 + 8 * 64, 8 * 64)
    assert found.text_encoders == Part(4 * 20 * 768, 20 * 768, 0), "embeddings are not quantised"
    assert found.vae == Part(4 * 8 * 7 * 9, 8 * 7 * 9, 0)
    assert recognise_tensors(tensors_of(without(SD1, "first_stage_model.")), {}).vae is None


def test_nine_input_channels_are_inpainting() -> None:
    assert recognise_tensors(tensors_of({**SDXL, FIRST: (8, 9, 3, 3)}), {}).inpaints


@pytest.mark.parametrize(
    ("shapes", "metadata", "prediction", "zero"),
    [
        ({**SDXL, "v_pred": (0,)}, {}, "v_prediction", False),
        ({**SDXL, "v_pred": (0,), "ztsnr": (0,)}, {}, "v_prediction", True),
        ({**SDXL, "ztsnr": (0,)}, {}, "epsilon", False),
        (SD1, {"modelspec.prediction_type": "v"}, "v_prediction", False),
        (SD2, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        (SD2, {"modelspec.prediction_type": "whatever"}, "epsilon", False),
    ],
)
def test_prediction_is_stated_by_tensors_or_metadata(
    shapes: Shapes, metadata: dict[str, str], prediction: str, zero: bool
) -> None:
    found = recognise_tensors(tensors_of(shapes), metadata)
    assert (found.prediction, found.zero_terminal_snr) == (prediction, zero)


@pytest.mark.parametrize(("spread", "prediction"), [(0.05, "epsilon"), (0.2, "v_prediction")])
def test_prediction_of_sd2_is_told_by_the_spread_of_one_tensor(tmp_path: Path, spread: float, prediction: str) -> None:
    shapes = {V_BIAS: (4,), **without(SD2, V_BIAS)}
    data = struct.pack("<4f", spread, -spread, spread, -spread)
    assert recognise_file(write_header(tmp_path / "a.safetensors", shapes, data=data)).prediction == prediction
    inpainting = {**shapes, FIRST: (8, 9, 3, 3)}
    assert recognise_file(write_header(tmp_path / "b.safetensors", inpainting, data=data)).prediction == "epsilon"


@pytest.mark.parametrize(
    ("dtype", "packed"),
    [("F16", struct.pack("<2e", 1.5, -2.0)), ("BF16", struct.pack("<2H", 0x3FC0, 0xC000)), ("F32", None)],
)
def test_small_tensor_is_read_in_every_type(tmp_path: Path, dtype: str, packed: bytes | None) -> None:
    file = write_header(tmp_path / "a.safetensors", {"x": (2,)}, data=packed or struct.pack("<2f", 1.5, -2.0))
    tensor = inspect(file).tensors["x"]
    short = type(tensor)(dtype, (2,), 0, 8 if packed is None else 4)
    assert read_tensor(file, short) == [1.5, -2.0]
    with pytest.raises(NotACheckpoint):
        read_tensor(file, type(tensor)(dtype, (2**20,), 0, 2**22))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({**SD1, FIRST: (8, 8, 3, 3)}, "pix2pix"),
        ({**SD2, FIRST: (8, 5, 3, 3)}, "depth maps"),
        ({**SD2, FIRST: (8, 7, 3, 3)}, "enlarges"),
        ({**SD2, FIRST: (8, 6, 3, 3)}, "not known here"),
        ({**SD2, FIRST: (8, 4)}, "not known here"),
        ({**SDXL, "edm_mean": (4,), "edm_std": (4,)}, "Playground 2.5"),
        ({**SDXL, "edm_vpred.sigma_max": (1,)}, "CosXL"),
        ({f"{UNET}joint_blocks.0.context_block.attn.qkv.weight": (8, 8)}, "Stable Diffusion 3"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": (8, 8)}, "flux1-dev"),
        ({"double_blocks.0.img_attn.qkv.weight": (8, 8)}, "flux1-dev"),
        ({**SDXL, "encoder_hid_proj.weight": (8, 8)}, "Kolors"),
        ({**SD1, f"{UNET}time_embed.cond_proj.weight": (8, 8)}, "reads the guidance"),
        ({**SD1, f"{UNET}input_blocks.1.1.time_stack.0.norm1.weight": (8,)}, "videos"),
        ({**SD2, "embedder.model.visual.conv1.weight": (8, 8)}, "unCLIP"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (8, 8)}, "LoRA"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "textual inversion"),
        ({"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)}, "ControlNet"),
        (VAE, "is a VAE"),
        ({"input_blocks.0.0.weight": (8, 4, 3, 3)}, "without text encoders"),
        (without(SD1, "cond_stage_model."), "without text encoders"),
        (without(SDXL, "conditioner."), "without its text encoders"),
        ({"conv_in.weight": (8, 4, 3, 3), "down_blocks.0.resnets.0.norm1.weight": (8,)}, "diffusers folder"),
        ({"x": (1,)}, "no checkpoint of Stable Diffusion"),
    ],
)
def test_other_files_are_refused_with_a_sentence(shapes: Shapes, words: str) -> None:
    with pytest.raises(NotACheckpoint) as refused:
        recognise_tensors(tensors_of(shapes), {})
    assert words in refused.value.reason
    assert refused.value.reason.endswith(".")


def test_types_of_weights_that_are_not_read_are_refused() -> None:
    with pytest.raises(NotACheckpoint, match="U8"):
        recognise_tensors(tensors_of(SD1, "U8"), {})


def test_damaged_file_is_refused_by_name_only(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"\0" * 100)
    with pytest.raises(NotACheckpoint) as refused:
        recognise_file(file)
    assert "a.safetensors" in refused.value.reason
    assert str(tmp_path) not in refused.value.reason


# ---- folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "unet", "scheduler", "found"),
    [
        ("StableDiffusionPipeline", {}, {}, ("sd1", "epsilon", False, False)),
        ("StableDiffusionInpaintPipeline", {"in_channels": 9}, {}, ("sd1", "epsilon", False, True)),
        (
            "StableDiffusionPipeline",
            {"use_linear_projection": True},
            {"prediction_type": "v_prediction"},
            ("sd2", "v_prediction", False, False),
        ),
        ("StableDiffusionXLPipeline", {}, {}, ("sdxl", "epsilon", False, False)),
        (
            "StableDiffusionXLPipeline",
            {},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            ("sdxl", "v_prediction", True, False),
        ),
    ],
)
def test_folder_is_recognised_by_its_configurations(
    tmp_path: Path, kind: str, unet: Any, scheduler: Any, found: tuple[Any, ...]
) -> None:
    kinds = recognise_folder(write_folder(tmp_path / "a", kind, unet=unet, scheduler=scheduler))
    assert (kinds.family, kinds.prediction, kinds.zero_terminal_snr, kinds.inpaints) == found
    assert kinds.unet == Part(4 * 8 * 4 * 9, 8 * 4 * 9, 0)


def test_folder_without_first_text_encoder_is_the_refiner(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", "StableDiffusionXLImg2ImgPipeline")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"text_encoder": ["transformers", "CLIPTextModel"]', '"x": 1'))
    found = recognise_folder(folder)
    assert (found.family, found.text_widths) == ("sdxl_refiner", (1280,))


@pytest.mark.parametrize(
    ("kind", "unet", "scheduler", "words"),
    [
        ("StableDiffusion3Pipeline", {}, {}, "Stable Diffusion 3"),
        ("KolorsPipeline", {}, {}, "Kolors"),
        ("FluxPipeline", {}, {}, "models.local"),
        ("<script>", {}, {}, "no diffusers folder of Stable Diffusion"),
        ("StableDiffusionInstructPix2PixPipeline", {}, {}, "pix2pix"),
        ("StableDiffusionPipeline", {"in_channels": 8}, {}, "pix2pix"),
        ("StableDiffusionPipeline", {"time_cond_proj_dim": 256}, {}, "reads the guidance"),
        ("StableDiffusionPipeline", {}, {"prediction_type": "sample"}, "neither noise nor v"),
        ("StableDiffusionXLPipeline", {}, {"_class_name": "EDMEulerScheduler"}, "Playground"),
        ("StableDiffusionXLPipeline", {}, {"beta_end": 0.014}, "another one"),
    ],
)
def test_other_folders_are_refused_with_a_sentence(
    tmp_path: Path, kind: str, unet: Any, scheduler: Any, words: str
) -> None:
    with pytest.raises(NotACheckpoint) as refused:
        recognise_folder(write_folder(tmp_path / "a", kind, unet=unet, scheduler=scheduler))
    assert words in refused.value.reason
    assert "script" not in refused.value.reason


def test_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").rename(folder / "unet" / "x.bin")
    with pytest.raises(NotACheckpoint, match="convert it to safetensors"):
        recognise_folder(folder)


@pytest.mark.parametrize("shard", ["m.fp16-0000{}-of-00002.safetensors", "m-0000{}-of-00002.fp16.safetensors"])
def test_folder_has_its_float16_variant_and_all_of_its_shards(tmp_path: Path, shard: str) -> None:
    names = [shard.format(number) for number in (1, 2)]
    for name in ("m.safetensors", *names):
        write_header(tmp_path / name, {"x": (1,)})
    assert [file.name for file in weights_in(tmp_path)] == names


# ---- VAE files -------------------------------------------------------------------------------------


def test_vae_is_recognised_with_and_without_prefix(tmp_path: Path) -> None:
    bare = {name.removeprefix("first_stage_model."): shape for name, shape in VAE.items()}
    for shapes in (VAE, bare, {**bare, "loss.logvar": (1,), "model_ema.decay": (1,)}):
        assert recognise_vae(write_header(tmp_path / "a.safetensors", shapes)).parameters == 8 * 7 * 9


@pytest.mark.parametrize(
    "shapes",
    [{"x": (1,)}, {**VAE, "first_stage_model.decoder.conv_in.weight": (8, 16, 3, 3)}, dict([*VAE.items()][1:])],
)
def test_vae_of_another_family_is_refused(tmp_path: Path, shapes: Shapes) -> None:
    with pytest.raises(NotACheckpoint):
        recognise_vae(write_header(tmp_path / "a.safetensors", shapes))
