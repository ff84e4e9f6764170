"""What families pass to mflux that cannot be built small, or not without the hub: exact arguments, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.drawing import canvas
from engine.drawing.base import BackendError, Model
from tests.support.engine import SPECS, Recorder, plan

pytest.importorskip("mlx.core")

RED = (Image.new("RGB", (64, 48), "red"),)
SIZED = {"seed": 7, "num_inference_steps": 4, "width": 64, "height": 48}


def painted(painter: Any, *, references: tuple[Image.Image, ...] = (), **said: Any) -> dict[str, Any]:
    """What the pipeline was asked for a plan."""
    from engine.pipelines.common.base import ImageTask

    watcher: Any = None
    painter.generate(ImageTask(plan(**said), 0, canvas.Frame((64, 48), (64, 48), references=references)), watcher)
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
    from engine.pipelines import fibo

    monkeypatch.setattr(fibo, "FIBO", Recorder)
    painter = fibo.load(Model(SPECS["fibo"], "/models/x", 8))
    assert painted(painter, prompt=said, negative_prompt="n", guidance=4.0) == {
        **SIZED,
        "prompt": caption,
        "image_path": None,
        "image_strength": None,
        "scheduler": "flow_match_euler_discrete",
        "guidance": 4.0,
        "negative_prompt": "n",
    }


@pytest.mark.parametrize(
    ("name", "said", "caption"),
    [
        ("fibo-edit", "make it red", '{"edit_instruction": "make it red"}'),
        ("fibo-edit", '{"edit_instruction": "x", "mood": "y"}', '{"edit_instruction": "x", "mood": "y"}'),
        ("fibo-edit-rmbg", "only the cat", '{"edit_instruction": "only the cat"}'),
        ("fibo-edit-rmbg", " ", "alpha matte"),
    ],
)
def test_fibo_edit_gets_instructions(name: str, said: str, caption: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS

    from engine.pipelines import fibo

    monkeypatch.setattr(fibo, "FIBOEdit", Recorder)
    painter: Any = fibo.load(Model(SPECS[name], "/models/x", None))
    assert painter._pipeline.model_config is AVAILABLE_MODELS[name]
    asked = painted(painter, prompt=said, guidance=4.0, references=RED)
    assert caption in asked.pop("prompt")
    given = {"image_path": RED[0], "scheduler": "flow_match_euler_discrete", "guidance": 4.0, "negative_prompt": None}
    assert asked == {**SIZED, **given}
    with pytest.raises(BackendError) as refused:
        painted(painter, prompt='{"mood": "y"}', references=RED)
    assert refused.value.code == "bad_input"


def test_prompt_encodings_are_computed_once_while_among_the_newest() -> None:
    from engine.pipelines.common.prompt_cache import CachedEncoder

    asked: list[str] = []
    encode = CachedEncoder(lambda prompt, tokenizer: asked.append(prompt) or prompt)
    said = ["a", "b", "a", *map(str, range(16)), "b"]
    assert [encode(prompt=prompt, tokenizer=None) for prompt in said] == said
    assert asked == ["a", "b", *map(str, range(16)), "b"]


def test_model_fibo_weights_are_converted_as_by_mflux_with_pytorch(tmp_path: Path) -> None:
    import mlx.core as mx

    from engine.pipelines.fibo import load_float16

    mx.save_safetensors(str(tmp_path / "a.safetensors"), {"x": mx.ones(2, mx.bfloat16), "y": mx.ones(2, mx.float32)})
    assert {name: value.dtype for name, value in load_float16(tmp_path).items()} == {"x": mx.float16, "y": mx.float32}


def test_model_iris_reads_parts_from_gateway_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mflux.models.iris.iris_initializer import IrisInitializer
    from mflux.models.iris.weights.iris_weight_definition import IrisWeightDefinition

    from engine.pipelines import iris

    seen: list[Any] = []

    class Built(Recorder):
        is_turbo = True

        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            saved = IrisInitializer.saved_path(given["model_config"], given["model_path"])
            seen.extend((IrisWeightDefinition.TEXT_ENCODER_REPO, given["model_config"].model_name, saved))

    monkeypatch.setattr(iris, "Iris", Built)
    spec = SPECS["iris-3b"]
    painter = iris.load(Model(spec, str(tmp_path), None, also=("/models/qwen",)))
    assert seen == ["/models/qwen", str(tmp_path), None]
    assert spec.also[0].repo == IrisWeightDefinition.TEXT_ENCODER_REPO
    assert painted(painter, prompt="p") == {**SIZED, "prompt": "p", "guidance": 1.0, "negative_prompt": None}


def test_model_anima_reads_tokenizers_from_gateway_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mflux.models.anima.weights.anima_weight_definition import AnimaWeightDefinition

    from engine.pipelines import anima

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
