"""Clients that live in environments of their own: openai's older majors and Node package, and what is built on them.

Skipped, and said so, where uv, npm or the packages cannot be had. The environments are shared: they take long to fill.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.client import CALLS_S, CLIENTS, INSTALL_S, add_node_packages, python_with, said
from tests.support.live import Live
from tests.support.v1 import gateway, hole_mask, input_png

DRAWN = {
    "generate": [64, 96],
    "url": [64, 96],
    "edit with a mask": [96, 64],
    "edit of a list": [96, 64],
    "variation": [96, 64],
    "models": True,
    "slash": "org/m:4bit",
    "stream": ["image_generation.completed", "image_generation.partial_image"],
    "stream of an edit": ["image_edit.completed", "image_edit.partial_image"],
    "bad size": ["BadRequestError", "size", 1],
    "no model": ["NotFoundError", "model", 1],
    "bad stream": ["BadRequestError", "n", 1],
}
"""What every client says of the same calls."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Its streams say more comments than events: all of these clients must pass over them."""
    with gateway(tmp_path_factory.mktemp("v1"), {"http": {"heartbeat_s": 0.05}}, step_seconds=0.2) as running:
        (running.folder / "picture.png").write_bytes(input_png())
        (running.folder / "mask.png").write_bytes(hole_mask())
        yield running


def arguments(served: Live) -> list[str]:
    return [served.url, str(served.folder / "picture.png"), str(served.folder / "mask.png")]


PYTHON = {
    "1.109.1": ["openai==1.109.1"],
    "2.54.0": [
        "openai==2.54.0",
        "litellm==1.106.2",
        "langchain-community==0.4.2",
        "llama-index-tools-openai-image-generation==0.7.0",
    ],
}
"""What lies beside which openai."""
NODE = ["openai@6.49.0", "ai@7.0.173", "@ai-sdk/openai@4.0.118", "@ai-sdk/openai-compatible@3.0.92"]


@pytest.fixture(scope="module")
def python_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The interpreter of an environment with that openai."""

    @functools.cache
    def made(version: str) -> str:
        return python_with(PYTHON[version], tmp_path_factory.mktemp("env"))

    return made


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where node finds the packages and the scripts."""
    folder = tmp_path_factory.mktemp("node")
    add_node_packages(NODE, folder)
    for script in CLIENTS.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@pytest.mark.timeout(INSTALL_S + CALLS_S)
@pytest.mark.parametrize("version", PYTHON)
def test_openai_client_of_an_older_version_gets_the_same(
    served: Live, tmp_path: Path, python_of: Callable[[str], str], version: str
) -> None:
    found = said([python_of(version), str(CLIENTS / "openai_calls.py"), *arguments(served)], tmp_path)
    assert found.pop("version") == version
    assert found.pop("async") == [[64, 64], [96, 64]]
    assert found == {**DRAWN, "null": [64, 96], "edit": [96, 64], "bad picture": ["BadRequestError", "image", 1]}


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_clients_litellm_langchain_and_llamaindex_get_the_fields_they_read(
    served: Live, tmp_path: Path, python_of: Callable[[str], str]
) -> None:
    found = said([python_of("2.54.0"), str(CLIENTS / "wrapper_calls.py"), *arguments(served)], tmp_path)
    assert found["litellm"] == {
        "generation": [[64, 96], [64, 96]],
        "more": [[64, 64]],
        "alias": [[64, 96]],
        "async": [[64, 96]],
        "variation": [[96, 64]],
        "edit": [[96, 64]],
        "edit with a mask": [[64, 64]],
        "refused": 400,
    }
    assert found["langchain"] == {"wrapper": [[64, 96], [64, 96]], "tool": [64, 96], "model": [64, 96]}
    assert found["llamaindex"] == {"url": [256, 256], "file": [256, 256], "tools": ["image_generation"]}


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_openai_node_client_gets_the_same_answers(served: Live, node_folder: Path) -> None:
    found = said(["node", "openai_calls.mjs", *arguments(served)], node_folder)
    assert found == {**DRAWN, "edit of a stream": [96, 64]}


@pytest.mark.timeout(INSTALL_S + CALLS_S)
def test_client_ai_sdk_gets_the_fields_it_reads(served: Live, node_folder: Path) -> None:
    """Its OpenAI provider asks for base64 and sends n requests at once; its compatible one asks for neither."""
    found = said(["node", "ai_sdk_calls.mjs", *arguments(served)], node_folder)
    edited = {"edit": [[96, 64]], "edit with a mask": [[96, 64]], "refused": ["AI_APICallError", 400, 1]}
    assert found == {
        "openai": {"generate": [[64, 96]] * 3, "gpt-image": [[64, 96]], **edited},
        "compatible": {"generate": [[64, 96]] * 2, "options": [[64, 64]], **edited},
    }
