"""The examples of Xinference's documentation, as written but for the corrections listed beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Live
from tests.support.v1 import MODEL, gateway, input_png

SEED = json.loads((Path(__file__).parents[2] / "seeds" / "xinference_images.json").read_text())
EXAMPLES: list[dict[str, Any]] = SEED["examples"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with gateway(tmp_path_factory.mktemp("seed"), step_seconds=0.0) as running:
        (running.folder / "xxx.jpg").write_bytes(input_png("JPEG"))
        (running.folder / "image_edit_original.png").write_bytes(input_png())
        yield running


def corrected(example: dict[str, Any], served: Live) -> str:
    text = "\n".join(example["text"])
    for old, new, _why in example["corrections"]:
        assert old in text
        text = text.replace(old, new)
    model = f'"{MODEL}"' if example["kind"] == "python" else MODEL
    text = text.replace('"<MODEL_UID>"', f'"{MODEL}"').replace("<MODEL_UID>", model)
    return text.replace("<XINFERENCE_HOST>", "127.0.0.1").replace("<XINFERENCE_PORT>", str(served.port))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_an_example_of_the_documentation_runs(served: Live, example: dict[str, Any]) -> None:
    text = corrected(example, served)
    if example["kind"] == "python":
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text]
    elif shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    else:
        command = ["sh", "-c", text]
    done = subprocess.run(command, cwd=served.folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if example["kind"] == "curl":
        answer = json.loads(done.stdout)
        assert set(answer) >= {"created", "data"}
        assert set(answer["data"][0]) >= {"url", "b64_json"}
