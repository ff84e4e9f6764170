"""SiLU and convolution on a CPU have MLX's bits: compared with MLX itself, whatever they were replaced with."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.client.environment import child_environment, has_openblas, on_linux_cpu
from engine.client.options import EngineOptions

mx = pytest.importorskip("mlx.core")

from mlx import nn  # noqa: E402

from engine.pipelines.cpu import conv, replace_slow_functions, silu  # noqa: E402

INF = float("inf")
EDGES = (0.0, -0.0, 1e-45, -1e-45, 0.34657359, 0.5, 87.9, -87.9, 88.0, -88.0, 88.1, -200.0, 3e38, INF, -INF)


def bits(array: Any) -> Any:
    return np.array(array).view(np.int32)


def same(one: Any, other: Any) -> bool:
    """Whether all bits are equal; NaN has many."""
    one, other = np.array(one), np.array(other)
    return bool(np.array_equal(np.isnan(one), np.isnan(other)) and (bits(one) == bits(other))[~np.isnan(one)].all())


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0, 15.0])
def test_silu_has_the_bits_of_mlx(scale: float) -> None:
    x = mx.random.normal((3, 50, 1001), key=mx.random.key(int(scale * 100))) * scale
    assert np.abs(np.array(x)).max() <= silu.MOST, "the fallback would be compared"
    result = silu.silu(x)
    assert (result.shape, result.dtype) == (x.shape, x.dtype)
    assert same(result, silu._silu(x))


@pytest.mark.parametrize("edge", [*EDGES, float("nan")])
def test_silu_of_an_edge_has_the_bits_of_mlx(edge: float) -> None:
    x = mx.concatenate([mx.random.normal((silu.CHUNK,)), mx.full((silu.LEAST,), edge)])
    assert same(silu.silu(x), silu._silu(x))


def test_silu_of_every_exponent_has_the_bits_of_mlx() -> None:
    """Numbers around each power of two up to 88, and each half, where the exponential changes its exponent."""
    powers = np.float32(2.0) ** np.arange(-126, 7, dtype=np.float32)
    halves = (np.arange(0, 127) + 0.5).astype(np.float32) / np.float32(1.442695)
    around = np.concatenate([powers, halves])
    near = np.concatenate([np.nextafter(around, np.float32(side)) for side in (-np.inf, np.inf)])
    x = np.concatenate([around, near, -around, -near]).astype(np.float32)
    x = mx.array(np.resize(x[np.abs(x) <= silu.MOST], 2 * silu.LEAST))
    assert same(silu.silu(x), silu._silu(x))


def test_silu_of_other_arrays_is_mlx_own() -> None:
    for x in (mx.ones((silu.LEAST,), mx.bfloat16), mx.ones((silu.LEAST - 1,)), mx.ones((silu.LEAST,), mx.float16)):
        result = silu.silu(x)
        assert result.dtype == x.dtype
        assert bool(mx.array_equal(result, silu._silu(x)))


def test_silu_of_a_part_of_an_array_has_the_bits_of_mlx() -> None:
    x = mx.random.normal((64, 400))
    part, turned = mx.split(x, 2, axis=-1)[1], x.transpose(1, 0)
    assert same(silu.silu(part), silu._silu(part))
    assert same(silu.silu(turned), silu._silu(turned))


def test_silu_on_several_threads_has_the_bits_of_mlx() -> None:
    arrays = [mx.random.normal((200_000,), key=mx.random.key(seed)) for seed in range(4)]
    mx.eval(arrays)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(silu.silu, arrays))
    assert all(same(result, silu._silu(x)) for result, x in zip(results, arrays, strict=True))


def test_convolutions_are_compared_in_a_process_with_the_engine_blas() -> None:
    """All tests below, which are skipped in a process without it."""
    environment = child_environment(EngineOptions(), os.environ)
    if not has_openblas() or not on_linux_cpu() or "openblas" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("no OpenBLAS, or this is that process")
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "olution or bits_would or choices",
    ]
    ended = subprocess.run(tests, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 skipped" in ended.stdout, "only this one may be skipped there"


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "_choices", {})
    monkeypatch.setattr(mx, "conv2d", mx.conv2d)
    if not conv.replace_conv2d():
        pytest.skip("MLX's BLAS is not found in this process")


@pytest.mark.usefixtures("replaced")
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(5, 70), st.integers(5, 70)),
    channels=st.tuples(st.sampled_from((3, 16, 33)), st.sampled_from((3, 16, 64))),
    kernel=st.sampled_from(((3, 3), (1, 3), (5, 5))),
    padding=st.sampled_from((0, 1, (1, 2), (2, 0))),
)
def test_convolution_is_always_that_of_mlx(size: Any, channels: Any, kernel: Any, padding: Any) -> None:
    """The first time by definition; then by the same bits, or because they were not the same."""
    key = mx.random.split(mx.random.key(sum(size)), 3)
    weight = mx.random.normal((channels[1], *kernel, channels[0]), key=key[0])
    for part in key[1:]:
        image = mx.random.normal((*size, channels[0]), key=part)
        assert same(mx.conv2d(image, weight, padding=padding), conv._conv2d(image, weight, padding=padding))


@pytest.mark.usefixtures("replaced")
def test_large_convolutions_are_computed_in_chunks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    image, weight = mx.random.normal((1, 96, 96, 32)), mx.random.normal((32, 3, 3, 32))
    turned = mx.random.normal((3, 3, 32, 32)).transpose(2, 0, 1, 3)
    for weights in (weight, turned):
        assert same(conv.convolve(np.asarray(image), np.asarray(weights), (1, 1)), conv._conv2d(image, weights, 1, 1))
    bounds = conv._bounds(96, 96 * 288, 32)
    assert len(bounds) > 4
    assert [first for first, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == 96


@pytest.mark.usefixtures("replaced")
@pytest.mark.parametrize(
    "more", [{"stride": 2}, {"dilation": 2}, {"groups": 4}, {"stride": (1, 2)}, {"stream": mx.cpu}], ids=str
)
def test_other_convolutions_are_mlx_own(more: dict[str, Any]) -> None:
    image = mx.random.normal((1, 40, 40, 16))
    weight = mx.random.normal((16, 3, 3, 16 // more.get("groups", 1)))
    assert same(mx.conv2d(image, weight, padding=1, **more), conv._conv2d(image, weight, padding=1, **more))
    assert not conv._choices
    half = mx.conv2d(image.astype(mx.float16), weight.astype(mx.float16), padding=1, **more)
    assert half.dtype == mx.float16


@pytest.mark.usefixtures("replaced")
def test_shape_whose_bits_would_differ_is_left_to_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    image, weight = mx.random.normal((1, 64, 64, 32)), mx.random.normal((32, 3, 3, 32))
    convolve = conv.convolve
    monkeypatch.setattr(conv, "convolve", lambda *given: convolve(*given) + np.float32(1e-6))
    for _ in range(2):
        assert same(mx.conv2d(image, weight, padding=1), conv._conv2d(image, weight, padding=1))
    assert conv._choices == {((1, 64, 64, 32), (32, 3, 3, 32), (1, 1)): False}


@pytest.mark.usefixtures("replaced")
def test_choices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, "MOST_CHOICES", 3)
    for rows in range(5, 15):
        mx.conv2d(mx.ones((1, rows, 5, 3)), mx.ones((3, 3, 3, 3)))
    assert len(conv._choices) <= 3


@pytest.mark.parametrize(("machine", "compiles"), [("x86_64", "0"), ("x86_64", None), ("aarch64", "1"), ("arm64", "1")])
def test_functions_are_replaced_on_x86_without_a_compiler_only(
    machine: str, compiles: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv("MLX_DISABLE_COMPILE", raising=False)
    if compiles is not None:
        monkeypatch.setenv("MLX_DISABLE_COMPILE", compiles)
    before = nn.silu, mx.conv2d
    replace_slow_functions()
    assert (nn.silu, mx.conv2d) == before


def test_silu_with_other_bits_is_left_to_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn, "silu", nn.silu)
    monkeypatch.setattr(silu, "FIRST", silu.FIRST * 1.001)
    assert not silu.replace_silu()
