"""Brownian motion over noise levels is torchsde's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.noise import BrownianNoise
from engine.protocol.sampling import RandomSource
from tests.engine.stable_diffusion.test_noise_generators import FACTS, FOLDER

LOW, HIGH = 0.03, 14.6
SHAPE = (1, 1, 3)
LEVELS = st.floats(LOW, HIGH)
PAIRS = st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=3)


@pytest.mark.parametrize("source", ["CPU", "NV"])
@pytest.mark.parametrize("seed", [3, 2**33 + 1])
def test_brownian_noise_is_that_of_torchsde(source: RandomSource, seed: int) -> None:
    sigmas = [float(np.float32(sigma)) for sigma in FACTS["sigmas"]]
    noise = BrownianNoise(seed, sigmas[-1], sigmas[0], (4, 3, 5), source)
    pairs = [*pairwise(sigmas), (sigmas[1], sigmas[4]), (sigmas[6], sigmas[2])]
    with np.load(FOLDER / "noise.npz", allow_pickle=False) as golden:
        expected = golden[f"brownian {source} {seed}"]
    np.testing.assert_allclose(np.stack([noise(*pair) for pair in pairs]), expected, rtol=0, atol=2e-6)


@settings(max_examples=12)
@given(LEVELS, LEVELS, LEVELS)
def test_motion_over_two_parts_is_that_over_the_whole(one: float, other: float, third: float) -> None:
    low, middle, high = sorted((one, other, third))
    noise = BrownianNoise(5, LOW, HIGH, SHAPE, "CPU")
    parts = sum(noise(*pair) * (pair[1] - pair[0]) ** 0.5 for pair in ((low, middle), (middle, high)))
    np.testing.assert_allclose(parts, noise(low, high) * (high - low) ** 0.5, atol=1e-5)


@settings(max_examples=8)
@given(LEVELS, LEVELS, PAIRS)
def test_motion_depends_on_no_earlier_query(one: float, other: float, before: list[tuple[float, float]]) -> None:
    fresh, used = (BrownianNoise(5, LOW, HIGH, SHAPE, "CPU") for _ in range(2))
    for pair in before:
        used(*pair)
    assert np.array_equal(fresh(one, other), used(one, other))
    assert np.array_equal(used(one, other), -used(other, one)) or one == other


def test_few_values_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.noise.brownian.MOST_KEPT", 3)
    few, many = BrownianNoise(5, LOW, HIGH, SHAPE, "CPU"), BrownianNoise(5, LOW, HIGH, SHAPE, "CPU")
    many._most_kept = 1000
    for pair in ((14.0, 7.0), (7.0, 2.0)):
        assert np.array_equal(few(*pair), many(*pair))
    assert len(few._kept) == 3


def test_levels_outside_of_the_range_count_as_its_ends() -> None:
    noise = BrownianNoise(5, LOW, HIGH, SHAPE, "CPU")
    inside, outside = noise(HIGH, 1.0) * (HIGH - 1.0) ** 0.5, noise(HIGH + 1.0, 1.0) * HIGH**0.5
    np.testing.assert_allclose(inside, outside, rtol=1e-6)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="sigma_min"):
        BrownianNoise(5, *ends, SHAPE, "CPU")
