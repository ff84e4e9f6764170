"""What the pipelines that follow pictures and maps are told: exactly these arguments, and no more."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.backends import canvas
from engine.backends.base import Model
from engine.protocol import Control
from tests.engine_support import SPECS, plan
from tests.test_engine_parts import Recorder

RED, MASK = Image.new("RGB", (64, 48), "red"), Image.new("L", (64, 48), 255)
COMMON = {"seed": 7, "prompt": "p", "num_inference_steps": 4, "width": 64, "height": 48}


@pytest.mark.parametrize(
    ("name", "module", "pipeline", "takes"),
    [
        ("flux1-kontext-dev", "flux1_pictures", "Flux1Kontext", {"guidance": 1.0, "image_path": RED}),
        (
            "flux1-fill-dev-8-bit",
            "flux1_pictures",
            "Flux1Fill",
            {"guidance": 1.0, "image_path": RED, "masked_image_path": MASK},
        ),
        ("flux1-redux-dev", "flux1_pictures", "Flux1Redux", {"guidance": 1.0, "redux_image_paths": [RED, RED]}),
        ("flux1-depth-dev", "flux1_controlled", "_Depth", {"guidance": 1.0, "depth_image_path": RED}),
        (
            "qwen-image-edit-2511-4-bit",
            "qwen",
            "QwenImageEdit",
            {"guidance": 1.0, "negative_prompt": "n", "image_paths": [RED, RED]},
        ),
    ],
)
def test_pipelines_that_follow_pictures_get_exactly_these_arguments(
    name: str, module: str, pipeline: str, takes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS

    from engine import families
    from engine.families.base import Sketch

    monkeypatch.setattr(importlib.import_module(f"engine.families.{module}"), pipeline, Recorder)
    spec = SPECS[name]
    painter: Any = families.load(Model(spec, "/models/x", spec.quantize))
    recorder: Recorder = painter._pipeline
    config = AVAILABLE_MODELS[spec.geometry]
    assert recorder.built == {"model_path": "/models/x", "quantize": spec.quantize, "model_config": config}
    what = plan(prompt="p", negative_prompt="n", control=Control(kind="depth", image="x"))
    frame = canvas.Frame((64, 48), (64, 48), RED, mask=MASK, references=(RED, RED), control=RED)
    watcher: Any = None
    painter.paint(Sketch(what, 0, frame), watcher)
    assert recorder.asked == {**COMMON, "scheduler": "linear", **takes}


def test_flux1_controlnets_get_the_map_as_a_file_and_their_weights_from_where_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from engine import families
    from engine.families import flux1_controlled
    from engine.families.base import Sketch

    monkeypatch.setattr(flux1_controlled, "Flux1Controlnet", Recorder)
    spec = SPECS["flux1-schnell-controlnet-canny"]
    painter: Any = families.load(Model(spec, "/models/x", None, also=("/models/net",)))
    recorder: Recorder = painter._pipeline
    assert recorder.model_config.controlnet_model == "/models/net"
    assert recorder.model_config.is_canny()
    watcher: Any = None
    what = plan(prompt="p", control=Control(kind="canny", image="x", strength=0.6))
    painter.paint(Sketch(what, 0, canvas.Frame((64, 48), (64, 48), control=RED)), watcher)
    with Image.open(recorder.asked.pop("controlnet_image_path")) as followed:
        assert followed.tobytes() == RED.tobytes()
    assert recorder.asked == {**COMMON, "scheduler": "linear", "guidance": 1.0, "controlnet_strength": 0.6}


@pytest.mark.parametrize("kind", ["canny", "depth"])
def test_z_images_controlnet_gets_the_map_with_its_strength(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mflux.models.z_image.variants.controlnet import ControlSpec, ControlType

    from engine import families
    from engine.families import z_image_controlled
    from engine.families.base import Sketch

    monkeypatch.setattr(z_image_controlled, "ZImageTurboControlnet", Recorder)
    spec = SPECS[f"z-image-turbo-controlnet-{kind}"]
    painter: Any = families.load(Model(spec, "/models/x", None, also=("/models/net",)))
    watcher: Any = None
    what = plan(prompt="p", control=Control(kind=kind, image="x", strength=0.6))
    painter.paint(Sketch(what, 0, canvas.Frame((64, 48), (64, 48), control=RED)), watcher)
    controls = [ControlSpec(type=ControlType(kind), image_path=RED, strength=0.6)]
    takes = {"scheduler": "linear", "controlnet_strength": 1.0, "controls": controls}
    assert painter._pipeline.asked == {**COMMON, **takes}


# ---- maps ----------------------------------------------------------------------------------------


def test_edges_are_those_that_opencv_finds() -> None:
    from engine.backends.canny import edges_of

    folder = Path(__file__).parent / "golden" / "canny"
    with Image.open(folder / "picture.png") as picture, Image.open(folder / "opencv.png") as found:
        assert edges_of(picture).convert("L").tobytes() == found.convert("L").tobytes()


def test_a_map_is_brought_to_the_size_drawn_and_edges_are_found_only_where_asked(tmp_path: Path) -> None:
    picture = Image.new("RGB", (128, 96), "white")
    picture.paste("black", (32, 24, 96, 72))
    picture.save(tmp_path / "x.png")

    def followed(**said: Any) -> Image.Image:
        control = Control(image="x", **said)
        control_image = canvas.frame_of(plan(control=control), None, {"x": str(tmp_path / "x.png")}).control
        assert control_image is not None
        assert control_image.size == (64, 48)
        return control_image

    assert followed(kind="depth").getpixel((32, 24)) == (0, 0, 0)
    assert followed(kind="canny", is_map=True).getpixel((2, 2)) == (255, 255, 255)
    edges = followed(kind="canny", is_map=False)
    assert edges.getpixel((32, 24)) == (0, 0, 0)
    assert edges.getpixel((2, 2)) == (0, 0, 0)
    assert edges.convert("L").getbbox() is not None


def test_a_map_is_one_of_the_inputs_that_are_kept() -> None:
    assert plan(control=Control(kind="depth", image="blob")).inputs == {"blob"}


# ---- prompts -------------------------------------------------------------------------------------


def test_qwens_prompts_are_seen_anew_with_other_pictures_only() -> None:
    from engine.families.qwen import _Seen

    asked: list[Any] = []
    encode: Callable[..., Any] = lambda **said: asked.append(said) or ()  # noqa: E731
    seen = _Seen(encode)
    green = Image.new("RGB", (64, 48), "green")
    for pictures in ([RED], [RED], [green], [RED, green]):
        seen(prompt="p", negative_prompt=None, image_paths=pictures, config=None, vl_width=1, vl_height=1)
    assert [said["image_paths"] for said in asked] == [[RED], [green], [RED, green]]
