"""The catalogue against itself, the seed's table and the names other gateways use."""

from __future__ import annotations

import pytest

from engine.catalog import CATALOG, ModelSpec
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


def test_catalogue_equals_the_documented_table() -> None:
    page = PAGE.read_text("utf-8")
    assert with_tables(page) == page, "run python -m tools.write_models"
    assert all(f"`{spec.name}`" in page for spec in CATALOG if not spec.quantize and not spec.stored_bits)
