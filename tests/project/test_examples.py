"""The example clients, against a real gateway."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.support.live import ROOT, live


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ModuleType, ModuleType]]:
    """Where the gateway is, and both examples, which speak to it."""
    with (
        live(tmp_path_factory.mktemp("gateway"), fake_script={"step_seconds": 0.02}) as gateway,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MFLUX_GATEWAY_URL", gateway.url)
        patch.syspath_prepend(str(ROOT / "examples"))
        yield gateway.url, importlib.import_module("client"), importlib.import_module("gradio_app")
        for name in ("client", "gradio_app"):
            del sys.modules[name]


def test_example_client_functions_draw_an_image(examples: tuple[str, ModuleType, ModuleType], tmp_path: Path) -> None:
    url, client, _ = examples
    (tmp_path / "a.png").write_bytes(client.draw("a red apple", url, width=128, height=64))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (128, 64)
    with pytest.raises(RuntimeError, match="'dreams' not found"):
        client.draw("a red apple", url, model="dreams")


def test_example_front_end_shows_progress_and_every_image(examples: tuple[str, ModuleType, ModuleType]) -> None:
    """Gradio itself is not installed here: its Pillow is older than ours. What its button calls is."""
    _, _, front_end = examples
    assert front_end.models() == ["flux2-tiny"]
    seen = list(front_end.draw("a red apple", "flux2-tiny", 128, 64, 0, 7, 2))
    pictures, last = seen[-1]
    assert ([picture.size for picture in pictures], last) == ([(128, 64)] * 2, "done")
    assert any(line.endswith("%") for _, line in seen)
    assert list(front_end.draw("", "dreams", 128, 64, 0, 7, 1))[-1][1].startswith("Model 'dreams' not found")
