"""What families pass to mflux that cannot be built small, or not without the hub: exact arguments, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.backends import canvas
from engine.backends.base import Model
from tests.engine_support import SPECS, Recorder, plan

pytest.importorskip("mlx.core")


def painted(painter: Any, **said: Any) -> dict[str, Any]:
    """What the pipeline was asked for a plan."""
    from engine.families.base import Sketch

    watcher: Any = None
    painter.paint(Sketch(plan(**said), 0, canvas.Frame((64, 48), (64, 48))), watcher)
    asked: dict[str, Any] = painter._pipeline.asked
    return asked


@pytest.mark.parametrize(
    ("said", "caption"),
    [
        ("a cat", '{"short_description": "a cat"}'),
        ("3", '{"short_description": "3"}'),
        ('{"short_description": "a dog"}', '{"short_description": "a dog"}'),
    ],
)
def test_fibo_gets_captions(said: str, caption: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.families import fibo

    monkeypatch.setattr(fibo, "FIBO", Recorder)
    painter = fibo.load(Model(SPECS["fibo"], "/models/x", 8))
    assert painted(painter, prompt=said, negative_prompt="n", guidance=4.0) == {
        "seed": 7,
        "prompt": caption,
        "num_inference_steps": 4,
        "width": 64,
        "height": 48,
        "image_path": None,
        "image_strength": None,
        "scheduler": "flow_match_euler_discrete",
        "guidance": 4.0,
        "negative_prompt": "n",
    }


def test_anima_reads_its_tokenizers_where_the_gateway_put_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mflux.models.anima.weights.anima_weight_definition import AnimaWeightDefinition

    from engine.families import anima

    seen: list[str] = []

    def build(**given: Any) -> Recorder:
        seen.extend(AnimaWeightDefinition.source_tokenizers())
        return Recorder(**given)

    monkeypatch.setattr(anima, "Anima", build)
    spec = SPECS["anima-turbo"]
    folders = tuple(str(tmp_path / more.repo.replace("/", "--")) for more in spec.also)
    anima.load(Model(spec, str(tmp_path), None, also=folders))
    assert tuple(seen) == folders
    assert list(AnimaWeightDefinition.source_tokenizers()) == [more.repo for more in spec.also]
