"""Noise of an image is what A1111 draws: variation, seed resize, ENSD, and the noise after the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.noise import ImageNoise, create_generator
from engine.noise.image_noise import paste_into_middle, slerp
from tests.engine.stable_diffusion.test_noise_generators import FACTS, FOLDER

FEW = settings(max_examples=40)
SIDES = st.integers(1, 9)


def noise_of(case: dict[str, Any]) -> ImageNoise:
    sized = {name: tuple(case[name]) for name in ("shape", "seed_resize") if name in case}
    return ImageNoise(**{**case, **sized})


@pytest.mark.parametrize("index", range(len(FACTS["images"])), ids=lambda index: str(FACTS["images"][index]))
def test_noise_of_an_image_is_that_of_a1111(index: int) -> None:
    case = FACTS["images"][index]
    noise = noise_of(case)
    with np.load(FOLDER / "noise.npz", allow_pickle=False) as golden:
        expected = golden[f"image {index}"]
    found = np.stack([noise.next() for _ in range(3)])
    if case["source"] == "NV" and "subseed" not in case:
        np.testing.assert_array_max_ulp(found, expected, maxulp=1)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def test_first_noise_is_drawn_once() -> None:
    noise = ImageNoise("CPU", 1, (4, 2, 2))
    noise.first()
    with pytest.raises(RuntimeError):
        noise.first()


@pytest.mark.parametrize("wrong", [{"shape": (4, 0, 2)}, {"seed_resize": (0, 3)}, {"seed_resize": (3, -1)}])
def test_noise_of_no_size_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ImageNoise("CPU", 1, **{"shape": (4, 2, 2), **wrong})


@FEW
@given(SIDES, SIDES, st.booleans())
def test_pasted_noise_fills_the_middle_and_leaves_the_rest(whole: int, part: int, is_turned: bool) -> None:
    large, small = np.zeros((2, whole, 3), np.float32), np.ones((2, part, 3), np.float32)
    if is_turned:
        large, small = large.swapaxes(1, 2), small.swapaxes(1, 2)
    pasted = paste_into_middle(small, large)
    assert not large.any()
    places = np.flatnonzero(pasted[0].all(axis=0 if is_turned else 1))
    assert pasted.sum() == 6 * len(places)
    if part <= whole:
        assert places.tolist() == list(range((whole - part) // 2, (whole - part) // 2 + part))
    else:
        # A part that is larger by an odd number leaves one place at the end, as in A1111.
        assert places.tolist() == list(range(whole - (part - whole) % 2))


@FEW
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.floats(0.0, 1.0))
def test_interpolated_noise_is_finite_and_ends_at_both_noises(one: int, other: int, share: float) -> None:
    shape = (4, 5, 3)
    low, high = (create_generator("CPU", seed).normal(60).reshape(shape) for seed in (one, other))
    assert np.isfinite(slerp(low, high, share)).all()
    assert np.isfinite(slerp(low, -low, share)).all()
    if one != other:
        np.testing.assert_allclose(slerp(low, high, 0.0), low, atol=1e-6)
        np.testing.assert_allclose(slerp(low, high, 1.0), high, atol=1e-6)


@FEW
@given(st.integers(0, 2**32), st.floats(0.01, 1.0))
def test_variation_by_a_seed_itself_changes_nothing_at_half(seed: int, strength: float) -> None:
    plain = ImageNoise("CPU", seed, (4, 3, 3)).first()
    varied = ImageNoise("CPU", seed, (4, 3, 3), subseed=seed, subseed_strength=strength).first()
    np.testing.assert_allclose(varied, plain, atol=1e-6)


def test_later_noise_with_a_seed_delta_is_that_of_the_other_seed() -> None:
    shifted, other = ImageNoise("CPU", 10, (4, 4, 4), eta_noise_seed_delta=7), ImageNoise("CPU", 17, (4, 4, 4))
    assert not np.array_equal(shifted.first(), other.first())
    assert np.array_equal(shifted.next(), ImageNoise("CPU", 17, (4, 4, 4)).first())
