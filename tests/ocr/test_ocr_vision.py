"""OCR by a vision model: exactly what mlx-vlm is asked, shown by a stand-in. No weights are read here."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import ValidationError
from xinference_client import RESTfulClient

from gateway.errors import InvalidRequest, ModelNotOnDisk, NotInstalled
from gateway.ocr import packages
from gateway.ocr.packages import check_vision
from gateway.ocr.pages import Unreadable
from gateway.ocr.vision import MAX_TOKENS, VisionReader, prompt_for
from gateway.settings import Settings
from tests.support.live import Live, live
from tests.support.ocr import encoded, pdf, written
from tests.support.v1 import assert_openai_error

ROOT = Path(__file__).parents[2]
STANDINS = Path(__file__).parents[1] / "standins"
READ_S = 120.0


def weights(folder: Path, model_type: str = "glm_ocr", text: str = "a line\n\nanother", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **config}))
    (folder / "text.txt").write_text(text)
    return folder


def calls(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`import mlx_vlm` finds the stand-in, also where the real one is installed."""
    monkeypatch.syspath_prepend(str(STANDINS))
    for name in ("mlx_vlm", "mlx_vlm.prompt_utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("mlx_vlm", "mlx_vlm.prompt_utils"):
        sys.modules.pop(name, None)


# ---- what is asked ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("standin")
def test_ocr_vision_model_is_called_with_exactly_these_arguments(tmp_path: Path) -> None:
    folder = weights(tmp_path / "glm")
    reader = VisionReader(folder)
    lines = reader.lines(Image.new("RGB", (4000, 1000)))
    assert [(line.text, line.box, line.score) for line in lines] == [
        ("a line", (), None),
        ("", (), None),
        ("another", (), None),
    ]
    prompt = "Extract all text from this image."
    assert calls(folder) == [
        {"call": "load", "path": str(folder), "adapter_path": None},
        {"call": "apply_chat_template", "prompt": prompt, "num_images": 1},
        {
            "call": "generate",
            "prompt": f"<glm_ocr>{prompt}",
            "image": [{"mode": "RGB", "size": [2048, 512]}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0.0,
        },
    ]


@pytest.mark.usefixtures("standin")
def test_ocr_picture_without_text_has_no_lines_and_endless_one_is_refused(tmp_path: Path) -> None:
    assert VisionReader(weights(tmp_path / "a", text=" \n")).lines(Image.new("RGB", (9, 9))) == ()
    endless = VisionReader(weights(tmp_path / "b", text="again and again"))
    with pytest.raises(Unreadable, match="more text"):
        endless.lines(Image.new("RGB", (9, 9)))


@pytest.mark.parametrize(
    ("model_type", "prompt"),
    [
        ("paddleocr_vl", "OCR:"),
        ("deepseekocr", "Free OCR."),
        ("deepseekocr_2", "Free OCR."),
        ("dots_ocr", "Extract all text from this image."),
        ("qwen3_vl", "Extract all text from this image."),
    ],
)
def test_ocr_vision_prompt_of_each_model_family(model_type: str, prompt: str) -> None:
    assert prompt_for(model_type) == prompt


@pytest.mark.usefixtures("standin")
def test_ocr_model_checkpoint_code_is_never_run(tmp_path: Path) -> None:
    """mlx-vlm imports the file that `model_file` names; tokenizers come as Python, too."""
    with pytest.raises(ValueError, match="code of its own"):
        VisionReader(weights(tmp_path / "a", model_file="evil.py"))
    assert not (tmp_path / "a" / "calls.jsonl").exists()
    (weights(tmp_path / "b") / "tokenization.py").touch()
    with pytest.raises(NotInstalled, match="Python files"):
        check_vision("b", tmp_path / "b", pdf=False)


def test_missing_dependency_error_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "VISION", "no_such_package")
    with pytest.raises(NotInstalled, match="uv sync --extra vision") as missing:
        check_vision("glm", weights(tmp_path / "glm"), pdf=False)
    assert missing.value.status == 501
    monkeypatch.setattr(packages, "VISION", "json")
    check_vision("glm", tmp_path / "glm", pdf=True)
    with pytest.raises(ModelNotOnDisk):
        check_vision("glm", tmp_path / "none", pdf=False)
    monkeypatch.setattr(packages, "PDF", "no_such_package")
    with pytest.raises(InvalidRequest, match="no_such_package"):
        check_vision("glm", tmp_path / "glm", pdf=True)


@pytest.mark.parametrize(
    ("ocr", "words"),
    [
        ({"default": "glm"}, "there is no model glm"),
        ({"models": {"rapidocr": "/weights"}}, "another model of that name"),
        ({"models": {"flux2-tiny": "/weights"}}, "another model of that name"),
        ({"models": {"": "/weights"}}, "at least 1 character"),
    ],
)
def test_ocr_setting_with_an_invalid_model_name_is_refused(ocr: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate({"ocr": ocr})
    assert Settings.model_validate({"ocr": {"models": {"glm": "/weights"}, "default": "glm"}}).ocr.default == "glm"


def test_ocr_pinned_mlx_vlm_has_the_functions_its_test_double_has(tmp_path: Path) -> None:
    """Its wheel is read, not installed: on Linux it would bring another set of packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = project["optional-dependencies"]["vision"][0].partition(";")[0]
    if shutil.which("uv") is None:
        pytest.skip("uv is not there to fetch mlx-vlm")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if done.returncode != 0:
        pytest.skip(f"{package} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    package_at = tmp_path / "mlx_vlm"
    exported = {alias.name for node in tree(package_at / "__init__.py") for alias in getattr(node, "names", ())}
    assert {"load", "generate"} <= exported
    assert parameters(package_at / "utils.py", "load")[0] == "path_or_hf_repo"
    assert parameters(package_at / "generate" / "dispatch.py", "generate")[:4] == [
        "model",
        "processor",
        "prompt",
        "image",
    ]
    template = parameters(package_at / "prompt_utils.py", "apply_chat_template")
    assert template[:3] == ["processor", "config", "prompt"]
    assert "num_images" in template
    assert {"max_tokens", "temperature"} <= fields(package_at / "generate" / "types.py")
    assert {"text", "finish_reason"} <= fields(package_at / "generate" / "common.py")


def tree(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text()).body


def parameters(file: Path, function: str) -> list[str]:
    (found,) = [node for node in tree(file) if isinstance(node, ast.FunctionDef) and node.name == function]
    return [argument.arg for argument in found.args.args]


def fields(file: Path) -> set[str]:
    classes = [node for node in tree(file) if isinstance(node, ast.ClassDef)]
    found = [node.target for kind in classes for node in kind.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in found if isinstance(target, ast.Name)}


# ---- over a socket ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway whose children find the stand-in; `glm` reads where nothing is named."""
    folder = tmp_path_factory.mktemp("vision")
    models = {name: str(weights(folder / name)) for name in ("glm", "broken", "endless")}
    (folder / "broken" / "broken").touch()
    weights(folder / "endless", text="again and again")
    (weights(folder / "coded") / "code.py").touch()
    models |= {"coded": str(folder / "coded"), "absent": str(folder / "absent")}
    running = Live(folder, config={"ocr": {"threads": 1, "models": models, "default": "glm"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(STANDINS))
        running.start()
    yield running
    running.stop()


@pytest.fixture
def client(served: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=READ_S) as client:
        yield client


def send(client: httpx.Client, document: bytes = b"", **fields: str) -> httpx.Response:
    document = document or encoded(written("Word", (300, 100)))
    return client.post("/v1/images/ocr", files={"image": ("image", document)}, data=fields)


def test_the_model_is_chosen_by_its_name_or_by_the_setting(served: Live, client: httpx.Client) -> None:
    for fields in ({"model": "glm"}, {}, {"model": "flux2-tiny"}):
        answer = send(client, **fields)
        assert (answer.status_code, answer.json()) == (200, "a line\n\nanother")
    (load, _, *generated) = calls(served.folder / "glm")
    assert load["path"] == str(served.folder / "glm")
    assert [call["image"] for call in generated] == [[{"mode": "RGB", "size": [300, 100]}]] * 3
    job = client.get(f"/api/v1/jobs/{answer.headers['x-request-id']}").json()
    assert job["result"]["text"] == "a line\n\nanother"


def test_ocr_both_models_take_turns_and_pages_are_read_one_by_one(client: httpx.Client) -> None:
    assert send(client, model="rapidocr").json() == "Word"
    assert send(client, pdf(written("1"), written("2"))).json() == "a line\n\nanother\n\na line\n\nanother"
    assert send(client, model="rapidocr", boxes="true").json()[0]["txt"] == "Word"


def test_ocr_options_that_a_vision_model_does_not_support_are_refused(client: httpx.Client) -> None:
    for param in ("return_dict", "boxes"):
        error = assert_openai_error(send(client, kwargs=json.dumps({param: True})), 400)
        assert (error["param"], "rapidocr" in error["message"]) == (param, True)
    assert "more text" in assert_openai_error(send(client, model="endless"), 400)["message"]


def test_model_that_cannot_be_loaded_is_an_error_that_the_client_does_not_retry(
    served: Live, client: httpx.Client
) -> None:
    answer = send(client, model="broken")
    assert assert_openai_error(answer, 500)["code"] == "model_load_failed"
    assert answer.headers["x-should-retry"] == "false"
    assert "safetensors" not in answer.text
    assert "No safetensors found" in served.logged()
    assert assert_openai_error(send(client, model="absent"), 404)["code"] == "model_not_on_disk"
    assert assert_openai_error(send(client, model="coded"), 501)["code"] == "not_installed"
    assert send(client).status_code == 200


def test_xinference_client_launches_lists_and_terminates_a_vision_ocr_model(served: Live) -> None:
    client = RESTfulClient(served.url)
    assert {"glm", "rapidocr"} <= set(client.list_models())
    assert not {"absent", "coded"} & set(client.list_models())
    uid = client.launch_model(model_name="glm", model_type="image")
    assert client.get_launch_model_progress(uid)["progress"] == 1.0
    assert client.describe_model(uid)["model_ability"] == ["ocr"]
    picture = encoded(written("Word"))
    assert client.get_model(uid).ocr(picture, request_id="mine") == "a line\n\nanother"
    assert client.abort_request(uid, "mine") == {"msg": "NO_OP"}
    client.terminate_model(uid)
    assert client.get_model(uid).ocr(picture) == "a line\n\nanother"
    client.close()


def test_ocr_route_without_mlx_vlm_says_how_to_install_it(tmp_path: Path) -> None:
    if packages._is_there(packages.VISION):
        pytest.skip("mlx-vlm is installed")
    config = {"ocr": {"models": {"glm": str(weights(tmp_path / "glm"))}}}
    with live(tmp_path, config=config) as running, httpx.Client(base_url=running.url, timeout=READ_S) as client:
        for answer in (send(client, model="glm"), client.get("/v1/models/glm")):
            assert "uv sync --extra vision" in assert_openai_error(answer, 501)["message"]
        assert "glm" not in [row["id"] for row in client.get("/v1/models").json()["data"]]
        assert send(client).json() == "Word"
