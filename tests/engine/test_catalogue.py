"""The catalogue against itself, the seed's table and the names other gateways use."""

from __future__ import annotations

import pytest

from engine.catalog import CATALOG, ModelSpec
from engine.catalog.spec import STABLE_DIFFUSION
from gateway.models.suggestions import INSTEAD, instead_of
from tools.write_models import PAGE, with_tables

SPECS = {spec.name: spec for spec in CATALOG}


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.name)
def test_catalogue_row_is_consistent(spec: ModelSpec) -> None:
    low, high = spec.guidance_range
    assert low <= spec.default_guidance <= high
    assert not spec.distilled or low == high
    assert 1 <= spec.default_steps <= spec.useful_max_steps
    assert spec.default_px % 16 == 0
    assert not (spec.quantize and spec.stored_bits)
    assert spec.max_references or not spec.needs_reference
    assert spec.repo is None or spec.files or spec.unavailable
    assert spec.loaded_gb(4) <= spec.loaded_gb(None)
    assert spec.fixed_gb <= (spec.weights_gb or spec.size_gb)
    assert spec.licence
    assert spec.description


def test_catalogue_row_names_are_unique() -> None:
    assert len(SPECS) == len(CATALOG)


def test_catalogue_serves_table_of_third_seed_except_flux2_dev() -> None:
    """Of the third seed's document."""
    klein = [
        f"flux2-klein-{base}{size}{bits}"
        for base in ("", "base-")
        for size in ("4b", "9b")
        for bits in ("", "-mlx-4bit", "-mlx-8bit", "-3-bit", "-4-bit", "-6-bit", "-8-bit")
        if not (base and size == "9b" and "mlx" in bits)
    ]
    assert len(klein) == 26
    assert all(SPECS[name].unavailable is None for name in klein)
    assert all(SPECS[name].unavailable for name in ("flux2-dev", "flux2-dev-4-bit", "flux2-dev-8-bit"))
    assert (SPECS["seedvr2"].task, SPECS["seedvr2"].unavailable) == ("upscale", None)


def test_model_quantised_takes_less_memory_and_unquantised_parts_are_unchanged() -> None:
    klein, qwen = SPECS["flux2-klein-4b"], SPECS["qwen-image"]
    assert klein.loaded_gb(None) == 16.0
    assert klein.loaded_gb(4) == pytest.approx(4.5)
    assert SPECS["flux2-klein-4b-mlx-4bit"].loaded_gb(8) == pytest.approx(4.6)
    assert qwen.loaded_gb(4) > qwen.fixed_gb


def test_model_names_of_other_gateways_resolve_to_a_served_model() -> None:
    for name, (_, served) in INSTEAD.items():
        spec = SPECS[served]
        assert spec.unavailable is None
        assert spec.task == "generate"
        sentence, suggestion = instead_of(name.upper()) or ("", "")
        assert "Use " in sentence or served in sentence
        assert suggestion == f"Use {served}"
    assert instead_of("nothing-like-it") is None


def test_names_of_stable_diffusion_files_resolve_to_rows_or_to_a_folder_for_the_file() -> None:
    for name in ("v1-5-pruned-emaonly.safetensors [6ce0161689]", "v1-5-pruned.ckpt", "runwayml/stable-diffusion-v1-5"):
        assert instead_of(name) == ("It is served as stable-diffusion-v1.5", "Use stable-diffusion-v1.5"), name
    for name in ("sub/dreamshaper_8.safetensors [879db523c3]", "dreamshaper_8.safetensors", "x [879db523c3]"):
        found = instead_of(name)
        assert found is not None, name
        assert all("models.checkpoint_dirs" in text for text in found)


STABLE = [spec for spec in CATALOG if spec.family in STABLE_DIFFUSION]


@pytest.mark.parametrize("spec", STABLE, ids=lambda spec: spec.name)
def test_catalogue_row_of_stable_diffusion_downloads_float16_at_a_commit(spec: ModelSpec) -> None:
    assert spec.revision is not None
    weights = [file for file in spec.files if file.endswith(".safetensors")]
    assert all(".fp16." in file for file in weights)
    encoders = {"sd1": 1, "sd2": 1, "sdxl": 2, "sdxl_refiner": 1}[spec.family]
    assert len(weights) == 2 + encoders
    assert all(f"{file.partition('/')[0]}/config.json" in spec.files for file in weights)
    assert {"model_index.json", "scheduler/scheduler_config.json"} <= set(spec.files)
    predicts_v = spec.name.removesuffix("-4-bit").removesuffix("-8-bit") == "stable-diffusion-2-1"
    assert spec.prediction == ("v_prediction" if predicts_v else "epsilon")


def test_catalogue_serves_stable_diffusion_of_the_fourth_seed() -> None:
    for name in ("stable-diffusion-v1.5", "stable-diffusion-xl-base-1.0", "sd-turbo", "sdxl-turbo"):
        assert (SPECS[name].unavailable, SPECS[name].task) == (None, "generate")
        assert {f"{name}-4-bit", f"{name}-8-bit"} <= SPECS.keys()


def test_catalogue_equals_the_documented_table() -> None:
    page = PAGE.read_text("utf-8")
    assert with_tables(page) == page, "run python -m tools.write_models"
    assert all(f"`{spec.name}`" in page for spec in CATALOG if not spec.quantize and not spec.stored_bits)
