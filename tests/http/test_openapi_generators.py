"""OpenAPI generators: they read /openapi.json without a complaint, and a client that one of them made draws.

Skipped, and said so, where the generators cannot be installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.client import (
    CALLS_S,
    CLIENTS,
    INSTALL_S,
    add_node_packages,
    add_packages,
    done,
    python_with,
    said,
)
from tests.support.live import Live
from tests.support.v1 import gateway, input_png

OPENAPI_PYTHON_CLIENT = "openapi-python-client==0.29.1"
OPENAPI_GENERATOR = "openapi-generator-cli==7.26.0"
TYPESCRIPT = ["openapi-typescript@7.13.0", "orval@8.38.0", "typescript@5.9.3"]
PICTURES_AS_BYTES = (
    "content_type_overrides: {image/png: application/octet-stream, image/jpeg: application/octet-stream}"
)
LANGUAGES = ("python", "typescript-fetch", "go")
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""For a program of a few seconds: no time for the code that is compiled to run for hours."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with gateway(tmp_path_factory.mktemp("v1"), step_seconds=0.0) as running:
        (running.folder / "picture.png").write_bytes(input_png())
        description = httpx.get(f"{running.url}/openapi.json", timeout=30)
        (running.folder / "openapi.json").write_bytes(description.content)
        yield running


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_the_client_of_openapi_python_client_draws(served: Live, tmp_path: Path) -> None:
    python = python_with([OPENAPI_PYTHON_CLIENT], tmp_path)
    (tmp_path / "config.yaml").write_text(PICTURES_AS_BYTES)
    command = [str(Path(python).with_name("openapi-python-client")), "generate"]
    command += ["--path", str(served.folder / "openapi.json"), "--output-path", "made", "--config", "config.yaml"]
    told = done(command, tmp_path)
    assert "WARNING" not in told, told
    add_packages(python, [str(tmp_path / "made")], tmp_path)
    found = said(
        [python, str(CLIENTS / "generated_calls.py"), served.url, str(served.folder / "picture.png")], tmp_path
    )
    assert found == {
        "generation": True,
        "edit": True,
        "txt2img": 1,
        "job": True,
        "upload": [96, 64],
        "refused": "model",
    }


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_openapi_generator_makes_clients_of_three_languages(
    served: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("java") is None:
        pytest.skip("java is not there to run openapi-generator")
    python = python_with([OPENAPI_GENERATOR], tmp_path)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", JAVA_OPTIONS)
    for language in LANGUAGES:
        one = {"generatorName": language, "inputSpec": str(served.folder / "openapi.json"), "outputDir": language}
        (tmp_path / f"{language}.yaml").write_text(json.dumps(one))  # JSON is YAML
    command = [str(Path(python).with_name("openapi-generator-cli")), "batch", "--fail-fast", "--threads", "1"]
    done([*command, *(f"{language}.yaml" for language in LANGUAGES)], tmp_path)
    assert all(any((tmp_path / language).iterdir()) for language in LANGUAGES)
    add_packages(python, [str(tmp_path / "python")], tmp_path)
    call = f"""
import json, openapi_client
client = openapi_client.ApiClient(openapi_client.Configuration(host={served.url!r}))
body = openapi_client.Generation(prompt="a red circle", size="64x64")
print(json.dumps({{"pictures": len(openapi_client.V1Api(client).post_v1_images_generations(body).data)}}))
"""
    assert said([python, "-c", call], tmp_path) == {"pictures": 1}


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_openapi_typescript_generators_produce_code_that_compiles(served: Live, tmp_path: Path) -> None:
    add_node_packages(TYPESCRIPT, tmp_path)
    description = str(served.folder / "openapi.json")
    programs = tmp_path / "node_modules" / ".bin"
    done([str(programs / "openapi-typescript"), description, "--output", "types.ts"], tmp_path)
    done([str(programs / "orval"), "--client", "fetch", "--input", description, "--output", "orval.ts"], tmp_path)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]
    options += ["--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable"]
    done([str(programs / "tsc"), *options, "types.ts", "orval.ts"], tmp_path)
