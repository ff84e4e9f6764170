"""Who may know whom: the arrows of the architecture, read from the import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.draw_rooms import PAGE, circles, module_graph, page, room_graph

ROOT = Path(__file__).parents[2]
FILES = [p for room in ("gateway", "adapters", "engine") for p in sorted((ROOT / room).rglob("*.py"))]
DOWNLOAD_CHILD_ONLY = ("gateway/downloads/fetch.py", "gateway/downloads/reasons.py")
OCR_CHILD_ONLY = tuple(f"gateway/ocr/{name}.py" for name in ("reader", "detector", "recogniser", "vision", "pages"))
OCR_PACKAGES = {"rapidocr", "onnxruntime", "pypdfium2", "cv2", "numpy", "mlx_vlm"}
CHILD_ONLY = ("engine/backends/mlx", "engine/pipelines/", "engine/samplers/")
WEB = ("adapters/", "gateway/app.py", "gateway/startup_app.py", "gateway/http/adapter.py", "gateway/http/server.py")
CLIENT_USERS = (
    "engine/client",
    "gateway/app.py",
    "gateway/service/parts.py",
    "gateway/service/engines.py",
    "gateway/service/health.py",
    "gateway/service/own_node.py",
    "gateway/lanes/engine.py",
)
ENGINE_SEEN = {
    "adapters/": ("engine.protocol", "engine.catalog"),
    "gateway/": (
        *("engine.protocol", "engine.catalog", "engine.client", "engine.clock"),
        *("engine.lora_layouts", "engine.child_notes", "engine.safetensors", "engine.mlx_build", "engine.prompts"),
        "engine.checkpoints",
    ),
}
"""What of the engine the others may import: what travels and the catalogue; the gateway also its client and helpers."""


def imports(file: Path) -> Iterator[str]:
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_import_rules_name_only_existing_paths() -> None:
    for path in (*DOWNLOAD_CHILD_ONLY, *OCR_CHILD_ONLY, *WEB, *CLIENT_USERS):
        assert (ROOT / path).exists(), path
    for module in {module for modules in ENGINE_SEEN.values() for module in modules}:
        place = ROOT / module.replace(".", "/")
        assert place.exists() or place.with_suffix(".py").exists(), module


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_between_packages_follow_the_allowed_direction(file: Path) -> None:
    name, found = name_of(file), set(imports(file))
    rooms = {module.split(".")[0] for module in found}
    if name.startswith("engine/"):
        assert not rooms & {"gateway", "adapters"}, "the engine imports nothing of ours but itself"
    if name.startswith("gateway/") and name != "gateway/app.py":
        assert "adapters" not in rooms, "the core knows no protocol"
    for top, seen in ENGINE_SEEN.items():
        if name.startswith(top):
            ours = {m for m in found if m.split(".")[0] == "engine" and m != "engine"}
            assert all(any(m == ok or m.startswith(ok + ".") for ok in seen) for m in ours), f"{top} may import {seen}"
    if name.startswith("adapters/"):
        own = name.split("/")[1].removesuffix(".py")
        foreign = {m.split(".")[1] for m in found if m.startswith("adapters.")} - {own, "shared"}
        assert name == "adapters/__init__.py" or not foreign, "no adapter imports another"
    if not name.startswith(CHILD_ONLY):
        assert not rooms & {"mlx", "mflux"}, "mflux and mlx are imported in the child only"
    if not name.startswith((*OCR_CHILD_ONLY, *CHILD_ONLY, "engine/")):
        assert not rooms & OCR_PACKAGES, "what reads text is imported in its child only"
    if not name.startswith(DOWNLOAD_CHILD_ONLY):
        assert "huggingface_hub" not in rooms or name.startswith(CHILD_ONLY), "the hub's client has a child of its own"
    if not name.startswith(WEB):
        assert not rooms & {"starlette", "sse_starlette"}, "starlette stays at the edge"


def test_engine_client_is_imported_by_one_module_only() -> None:
    users = [name_of(f) for f in FILES if any(m.startswith("engine.client") for m in imports(f))]
    allowed = CLIENT_USERS
    assert all(user.startswith(allowed) for user in users)


def test_modules_use_no_pickle_eval_or_shell() -> None:
    """S-44: no pickle in any coat, no shell, no second road to the network."""
    modules = {"pickle", "marshal", "shelve", "dill", "torch", "requests", "urllib.request", "multiprocessing"}
    calls = {"eval", "exec", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "numpy.load"}
    for file in FILES:
        assert not {m for m in imports(file) if m in modules or m.split(".")[0] in modules}, name_of(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{name_of(file)}:{node.lineno}"
                shell = [k.value for k in node.keywords if k.arg == "shell"]
                assert not any(ast.unparse(value) != "False" for value in shell), f"{name_of(file)}:{node.lineno}"


def test_modules_have_no_circular_imports() -> None:
    assert circles(module_graph()) == []


def test_packages_have_no_circular_imports() -> None:
    assert circles(room_graph()) == []


def test_package_diagram_in_the_documentation_matches_the_imports() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python -m tools.draw_rooms"
