"""The networks of these tests are small: compiling a function takes longer than all calls of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import mlx.core as mx
import pytest


@pytest.fixture(autouse=True, scope="package")
def uncompiled() -> Iterator[None]:
    mx.disable_compile()
    yield
    if os.environ.get("MLX_DISABLE_COMPILE") != "1":
        mx.enable_compile()
