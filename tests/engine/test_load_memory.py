"""Memory at load: what a model holds afterwards and little more, quantised on the way or not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from engine.drawing.base import Model
from gateway.residency.quantized_copies import Copies

mx = pytest.importorskip("mlx.core")
from benchmarks.load_memory import WIDE, loading, saved  # noqa: E402

MOST = 1.5


@pytest.mark.parametrize("name", [WIDE, "lens-turbo", "z-image"])
def test_memory_peak_of_quantising_at_load_is_near_held_memory(name: str, tmp_path: Path) -> None:
    with saved(name, tmp_path / "model") as (spec, also):
        whole, eighth = (loading(Model(spec, str(tmp_path / "model"), bits, also=also)) for bits in (None, 8))
        copies = Copies(tmp_path, keep=True) if spec.copies else None
        quarter = loading(Model(spec, str(tmp_path / "model"), 4, also=also), copies)
        assert quarter.held < eighth.held < whole.held
        assert max(whole.ratio, eighth.ratio, quarter.ratio) < MOST
        copy = copies and copies.find(spec, tmp_path / "model", 4)
        if copy is not None:
            again = loading(Model(spec, str(tmp_path / "model"), 4, copy=str(copy), also=also))
            assert again.ratio < MOST
            assert again.held == pytest.approx(quarter.held, rel=0.02)


def test_engine_never_evaluates_a_whole_mflux_model_unnoticed() -> None:
    from engine.pipelines.common.loading import EVALUATING

    spec = importlib.util.find_spec("mflux")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    found = {
        ".".join(("mflux", *file.relative_to(root).with_suffix("").parts))
        for file in root.glob("models/**/*initializer.py")
        if "mx.eval(" in file.read_text()
    }
    assert found <= set(EVALUATING)
