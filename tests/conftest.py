"""What tests of several modules begin from. A module that needs another gateway has a `served` of its own."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import signal
import ssl
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import httpx
import hypothesis
import pytest

from engine.client.environment import OPENBLAS, has_openblas
from engine.mlx_build import on_linux_cpu
from gateway.store.base import JobStore
from tests.support import PRELOADED
from tests.support.live import Live
from tests.support.loops import ASYNCIO
from tests.support.store import STORES, Clock
from tests.support.v1 import Counting, gateway, openai_client, plain_client

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it starts in the background ignore Ctrl-C; the commands under test must hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the processes under test would compile all they import anew
# Every httpx.Client would load all trusted authorities anew, tens of milliseconds each: one load does for all.
ssl.create_default_context = functools.cache(ssl.create_default_context)
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

LONGEST = (
    "engine_toys",
    "schemathesis",
    "embedded_model",
    "hostile_text",
    "studio",
    "cli",
    "v1_other_clients",
    "stopping",
    "studio_craft",
    "openapi_generators",
    "hang_ups",
    "ocr_hostile",
    "damaged_records",
    "ocr_reading",
    "ocr_http",
    "engine_client",
    "silence",
    "storage_http",
    "kill_loops",
    "downloads",
    "sdapi_embedded",
    "descriptors",
    "photos",
    "studio_models",
    "load_memory",
    "sdapi_bad_input",
    "engine_copies",
)
"""Files of tests by the time they take: these come first, so that no worker is left alone with one of them."""

COROUTINE_TIMEOUT_S = 60.0
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31)}
"""glibc keeps freed memory: MLX on a CPU would ask for each buffer anew, a tenth of the time of a drawing."""


def pytest_configure(config: pytest.Config) -> None:
    """Tests that draw in their own process get the OpenBLAS that the engine gets: half of their time on a Linux CPU."""
    if hasattr(config, "workerinput"):
        # It is loaded; processes under test find theirs by themselves, but those that are to compute as we do.
        os.environ[PRELOADED] = os.environ.pop("LD_PRELOAD", "")
        for name in ALLOCATOR:
            os.environ.pop(name, None)
    elif config.getoption("numprocesses") and on_linux_cpu() and has_openblas() and "LD_PRELOAD" not in os.environ:
        os.environ["LD_PRELOAD"] = OPENBLAS
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        os.environ.update(ALLOCATOR)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        if is_coroutine_test(item):
            assert "anyio_backend" in item.fixturenames, f"{item.nodeid} would never be awaited"
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(COROUTINE_TIMEOUT_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: the garbage collector would look through it in vain, for seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def is_coroutine_test(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether the test is `async def`, under Hypothesis too."""
    function = getattr(item, "obj", None)
    given = getattr(function, "hypothesis", None)
    return inspect.iscoroutinefunction(given.inner_test if given else function)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Coroutine tests run on a loop of their own each, of asyncio alone."""
    return ASYNCIO


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway of the fake engine that draws at once, with the models of /v1's tests."""
    with gateway(tmp_path_factory.mktemp("v1"), step_seconds=0.0) as running:
        yield running


@pytest.fixture
def plain(served: Live) -> Iterator[httpx.Client]:
    """HTTP and nothing else, to that gateway."""
    with plain_client(served) as client:
        yield client


@pytest.fixture
def counting(served: Live) -> Iterator[Counting]:
    """openai's client of that gateway; it counts what it sends."""
    with openai_client(served) as counting:
        yield counting


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., JobStore]:
    clock = Clock()
    return lambda: STORES[request.param](tmp_path / "data", clock)
