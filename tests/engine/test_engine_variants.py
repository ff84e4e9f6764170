"""What the pipelines that follow pictures and maps are told: exactly these arguments, and no more."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from engine.catalog import CATALOG, EMBEDDED_PATH
from engine.drawing import canvas
from engine.drawing.base import Model
from engine.protocol import Control
from tests.engine.test_engine_parts import Recorder
from tests.support.engine import SPECS, plan

RED, MASK = Image.new("RGB", (64, 48), "red"), Image.new("L", (64, 48), 255)
COMMON = {"seed": 7, "prompt": "p", "num_inference_steps": 4, "width": 64, "height": 48}


@pytest.mark.parametrize(
    ("name", "module", "pipeline", "takes"),
    [
        ("flux1-kontext-dev", "flux1_images", "Flux1Kontext", {"guidance": 1.0, "image_path": RED}),
        (
            "flux1-fill-dev-8-bit",
            "flux1_images",
            "Flux1Fill",
            {"guidance": 1.0, "image_path": RED, "masked_image_path": MASK},
        ),
        ("flux1-redux-dev", "flux1_images", "Flux1Redux", {"guidance": 1.0, "redux_image_paths": [RED, RED]}),
        ("flux1-depth-dev", "flux1_controlled", "_Depth", {"guidance": 1.0, "depth_image_path": RED}),
        (
            "qwen-image-edit-2511-4-bit",
            "qwen",
            "QwenImageEdit",
            {"guidance": 1.0, "negative_prompt": "n", "image_paths": [RED, RED]},
        ),
    ],
)
def test_pipeline_with_reference_images_gets_exactly_these_arguments(
    name: str, module: str, pipeline: str, takes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mflux.models.common.config.model_config import AVAILABLE_MODELS

    from engine import pipelines as families
    from engine.pipelines.common.base import ImageTask

    monkeypatch.setattr(importlib.import_module(f"engine.pipelines.{module}"), pipeline, Recorder)
    spec = SPECS[name]
    painter: Any = families.load(Model(spec, "/models/x", spec.quantize))
    recorder: Recorder = painter._pipeline
    config = AVAILABLE_MODELS[spec.geometry]
    assert recorder.built == {"model_path": "/models/x", "quantize": spec.quantize, "model_config": config}
    what = plan(prompt="p", negative_prompt="n", control=Control(kind="depth", image="x"))
    frame = canvas.Frame((64, 48), (64, 48), RED, mask=MASK, references=(RED, RED), control=RED)
    watcher: Any = None
    painter.generate(ImageTask(what, 0, frame), watcher)
    assert recorder.asked == {**COMMON, "scheduler": "linear", **takes}


def test_controlnet_flux1_gets_map_as_file_and_weights_from_their_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from engine import pipelines as families
    from engine.pipelines import flux1_controlled
    from engine.pipelines.common.base import ImageTask

    monkeypatch.setattr(flux1_controlled, "Flux1Controlnet", Recorder)
    spec = SPECS["flux1-schnell-controlnet-canny"]
    painter: Any = families.load(Model(spec, "/models/x", None, also=("/models/net",)))
    recorder: Recorder = painter._pipeline
    assert recorder.model_config.controlnet_model == "/models/net"
    assert recorder.model_config.is_canny()
    watcher: Any = None
    what = plan(prompt="p", control=Control(kind="canny", image="x", strength=0.6))
    painter.generate(ImageTask(what, 0, canvas.Frame((64, 48), (64, 48), control=RED)), watcher)
    with Image.open(recorder.asked.pop("controlnet_image_path")) as followed:
        assert followed.tobytes() == RED.tobytes()
    assert recorder.asked == {**COMMON, "scheduler": "linear", "guidance": 1.0, "controlnet_strength": 0.6}


@pytest.mark.parametrize("kind", ["canny", "depth"])
def test_controlnet_of_z_image_gets_map_with_its_strength(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mflux.models.z_image.variants.controlnet import ControlSpec, ControlType

    from engine import pipelines as families
    from engine.pipelines import z_image_controlled
    from engine.pipelines.common.base import ImageTask

    monkeypatch.setattr(z_image_controlled, "ZImageTurboControlnet", Recorder)
    spec = SPECS[f"z-image-turbo-controlnet-{kind}"]
    painter: Any = families.load(Model(spec, "/models/x", None, also=("/models/net",)))
    watcher: Any = None
    what = plan(prompt="p", control=Control(kind=kind, image="x", strength=0.6))
    painter.generate(ImageTask(what, 0, canvas.Frame((64, 48), (64, 48), control=RED)), watcher)
    controls = [ControlSpec(type=ControlType(kind), image_path=RED, strength=0.6)]
    takes = {"scheduler": "linear", "controlnet_strength": 1.0, "controls": controls}
    assert painter._pipeline.asked == {**COMMON, **takes}


# ---- maps ----------------------------------------------------------------------------------------


def test_edges_are_those_that_opencv_finds() -> None:
    from engine.drawing.canny import edges_of

    folder = Path(__file__).parents[1] / "golden" / "canny"
    with Image.open(folder / "picture.png") as picture, Image.open(folder / "opencv.png") as found:
        assert edges_of(picture).convert("L").tobytes() == found.convert("L").tobytes()


def test_controlnet_edges_of_z_image_use_brightness_as_in_mflux() -> None:
    from engine.drawing.canny import edges_of

    folder = Path(__file__).parents[1] / "golden" / "canny"
    with Image.open(folder / "picture.png") as picture:
        grey = edges_of(picture, grey=True)
        # Of a picture of one channel OpenCV finds what it finds where all three are alike.
        assert grey.tobytes() == edges_of(picture.convert("L").convert("RGB")).tobytes()
        assert grey.tobytes() != edges_of(picture).tobytes()
    assert {spec.name for spec in CATALOG if spec.grey_edges} == {
        spec.name for spec in CATALOG if spec.family == "z_image" and spec.control is not None
    }


def test_controlnet_edges_are_detected_as_the_model_was_trained(tmp_path: Path) -> None:
    picture = Image.new("RGB", (128, 96), (76, 76, 76))
    picture.paste((254, 0, 0), (32, 24, 96, 72))  # as bright as what is round it
    picture.save(tmp_path / "x.png")
    control = Control(kind="canny", image="x", is_map=False)

    def box(*, grey_edges: bool) -> object:
        found = canvas.frame_of(plan(control=control), None, {"x": str(tmp_path / "x.png")}, grey_edges=grey_edges)
        assert found.control is not None
        return found.control.convert("L").getbbox()

    assert box(grey_edges=False) is not None
    assert box(grey_edges=True) is None


def test_controlnet_map_is_resized_and_edges_detected_only_on_request(tmp_path: Path) -> None:
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


def test_controlnet_map_is_stored_as_input_image() -> None:
    assert plan(control=Control(kind="depth", image="blob")).inputs == {"blob"}


# ---- prompts -------------------------------------------------------------------------------------


def test_model_qwen_prompt_is_reencoded_only_with_other_images() -> None:
    from engine.pipelines.qwen import _CachedImagePrompts

    asked: list[Any] = []
    encode: Callable[..., Any] = lambda **said: asked.append(said) or ()  # noqa: E731
    seen = _CachedImagePrompts(encode)
    green = Image.new("RGB", (64, 48), "green")
    for pictures in ([RED], [RED], [green], [RED, green]):
        seen(prompt="p", negative_prompt=None, image_paths=pictures, config=None, vl_width=1, vl_height=1)
    assert [said["image_paths"] for said in asked] == [[RED], [green], [RED, green]]


def test_reference_images_encoded_once_match_the_mflux_loop() -> None:
    """Pixel for pixel, with the embedded model in the place of flux2-klein-9b-kv."""
    from mflux.callbacks.callback_registry import CallbackRegistry
    from mflux.models.flux2.variants.edit.flux2_klein_edit import Flux2KleinEdit
    from mlx import nn

    from engine.pipelines import flux2
    from engine.pipelines.common.base import ImageTask

    painter: Any = flux2.load_tiny(Model(SPECS["flux2-tiny"], str(EMBEDDED_PATH), None))
    pipeline = painter._pipeline
    pipeline.model_config.supports_kv_cache = True
    reference = Image.new("RGB", (32, 32), "red")
    reference.paste("blue", (8, 8, 24, 24))
    what = plan(prompt="a blue circle", steps=2, width_px=64, height_px=64)
    watcher: Any = Mock()
    sketch = ImageTask(what, 0, canvas.Frame((64, 64), (64, 64), references=(reference,)))
    made = painter.generate(sketch, watcher)

    edit: Any = Flux2KleinEdit.__new__(Flux2KleinEdit)
    nn.Module.__init__(edit)
    for name, part in pipeline.items():
        edit[name] = part
    for name, value in vars(pipeline).items():
        object.__setattr__(edit, name, value)
    edit.callbacks = CallbackRegistry()
    said = {"seed": sketch.seed, "prompt": painter._prompt(sketch), "num_inference_steps": 2, "height": 64, "width": 64}
    pictures = {
        cached: edit.generate_image(**said, guidance=1.0, image_paths=[reference], use_kv_cache=cached).image
        for cached in (True, False)
    }
    assert made.tobytes() == pictures[True].convert("RGB").tobytes()
    assert made.tobytes() != pictures[False].convert("RGB").tobytes()
