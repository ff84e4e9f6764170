"""How large previews are decoded."""

from __future__ import annotations

import pytest

pytest.importorskip("mlx.core")

from engine.pipelines.common.preview_size import FIRST_PX, LEAST_PX, SHARE, PreviewSize

A_DECODE_S = 5.0
"""Of 256 pixels square."""


def decode_s(px: int) -> float:
    return A_DECODE_S * (px / 256) ** 2


@pytest.mark.parametrize("step_s", [0.01, 1.0, 40.0, 100.0, 1000.0])
def test_preview_uses_small_share_of_step_time_and_scales_to_it(step_s: float) -> None:
    size = PreviewSize()
    assert size.px == FIRST_PX
    for _ in range(4):
        size.learn(decode_s(size.px), step_s)
    assert LEAST_PX <= size.px <= 256
    assert decode_s(size.px) <= SHARE * step_s or size.px == LEAST_PX
    assert decode_s(size.px + 2) > SHARE * step_s or size.px == 256


def test_preview_size_with_zero_time_does_not_divide_by_zero() -> None:
    size = PreviewSize()
    size.learn(0.0, 1.0)
    assert size.px == 256
    size.learn(1.0, 0.0)
    assert size.px == LEAST_PX
