"""Noise levels and schedules are those that A1111 computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("mlx.core")

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol.sampling import Sampling
from engine.samplers import beta_distribution
from engine.samplers.noise_levels import LcmLevels, NoiseLevels
from engine.samplers.schedules import SCHEDULES, sigmas_for
from tests.engine.stable_diffusion.toy_network import CASES, golden_arrays, levels_of

GOLDEN = golden_arrays()
ORDINARY = NoiseLevels()


def sigmas_of(case: dict[str, Any]) -> Any:
    sampling = Sampling.model_validate(case["sampling"])
    return sigmas_for(sampling, case["steps"], levels_of(sampling), is_sdxl=case.get("is_sdxl", False))


@pytest.mark.parametrize("name", sorted({case["sampling"].get("schedule", "Automatic") for case in CASES["schedules"]}))
def test_schedule_has_the_noise_levels_of_a1111(name: str) -> None:
    for index, case in enumerate(CASES["schedules"]):
        if case["sampling"].get("schedule", "Automatic") == name:
            sigmas, expected = sigmas_of(case), GOLDEN[f"sigmas {index}"]
            assert sigmas.dtype == np.float32
            assert sigmas.shape == expected.shape, case
            np.testing.assert_allclose(sigmas, expected, rtol=1e-6, err_msg=str(case))


FEW = settings(max_examples=50)
NAMES = st.sampled_from(sorted(SCHEDULES))
STEPS = st.integers(1, 60)


@FEW
@given(NAMES, STEPS, st.booleans(), st.booleans())
def test_schedule_falls_from_the_highest_level_to_nothing(
    name: Any, steps: int, is_sdxl: bool, is_for_lcm: bool
) -> None:
    sampling = Sampling(schedule=name, sampler="LCM" if is_for_lcm else "Euler")
    sigmas = sigmas_for(sampling, steps, ORDINARY, is_sdxl=is_sdxl)
    assert (np.diff(sigmas) <= 0).all()
    assert sigmas[0] <= 14.7
    assert sigmas[-1] == 0 or name == "KL Optimal"
    if name not in ("DDIM", "Simple"):
        assert len(sigmas) == steps + 1
        assert (np.diff(sigmas) < 0).all() or is_for_lcm


@FEW
@given(st.sampled_from(["DPM2", "DPM2 a", "DPM++ 3M SDE"]), STEPS)
def test_samplers_that_discard_a_level_take_the_penultimate_of_one_more(sampler: Any, steps: int) -> None:
    longer = sigmas_for(Sampling(schedule="Karras"), steps + 1, ORDINARY, is_sdxl=False)
    for option in (False, True):
        sampling = Sampling(sampler=sampler, schedule="Karras", discard_penultimate_sigma=option)
        sigmas = sigmas_for(sampling, steps, ORDINARY, is_sdxl=False)
        assert np.array_equal(sigmas, [*longer[:-2], 0.0])


@FEW
@given(st.floats(0.0, 999.0), st.booleans())
def test_timestep_of_a_level_is_the_one_of_which_it_is_the_level(timestep: float, is_rescaled: bool) -> None:
    levels = NoiseLevels(zero_terminal_snr=is_rescaled)
    assert levels.timestep(levels.sigma(timestep)) == pytest.approx(timestep, abs=2e-3)


def test_timesteps_end_at_the_ends_of_the_table() -> None:
    assert ORDINARY.timestep(1e-6) == 0.0
    assert ORDINARY.timestep(1e6) == 999.0
    assert ORDINARY.sigma(0.0) == pytest.approx(0.0291675, rel=1e-5)
    assert ORDINARY.sigma(999.0) == pytest.approx(14.614642, rel=1e-6)


def test_noise_without_signal_is_the_last_level_of_zero_terminal_snr() -> None:
    levels = NoiseLevels(zero_terminal_snr=True)
    assert levels.sigmas[-1] == pytest.approx(4518.76, rel=1e-4)
    assert levels.alphas_cumprod[0] == pytest.approx(ORDINARY.alphas_cumprod[0], rel=1e-6)
    both = NoiseLevels(zero_terminal_snr=True, downcast=True)
    assert np.isfinite(both.sigmas).all()


@FEW
@given(st.floats(0.0, 999.0))
def test_distilled_models_get_one_of_their_50_timesteps(timestep: float) -> None:
    levels = LcmLevels(ORDINARY)
    found = levels.timestep(ORDINARY.sigma(timestep))
    assert (found - 19) % 20 == 0
    assert 19 <= found <= 999
    assert levels.sigma(found) == pytest.approx(ORDINARY.sigma(found), rel=1e-6)


@settings(max_examples=20)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.1, 0.9))
def test_quantiles_of_the_beta_distribution_rise_and_are_symmetric(one: float, other: float, shape: float) -> None:
    low, high = sorted((one, other))
    first, second, mirrored = beta_distribution.quantile(np.array([low, high, 1.0 - high]), shape)
    assert 0.0 <= first <= second <= 1.0
    assert mirrored == pytest.approx(1.0 - second, abs=1e-9)


def test_quantiles_of_the_arcsine_distribution_are_its_formula() -> None:
    shares = np.linspace(0.0, 1.0, 21)
    expected = np.sin(0.5 * np.pi * shares) ** 2
    np.testing.assert_allclose(beta_distribution.quantile(shares, 0.5), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [({}, 0), ({"sigma_min": -1.0}, 5), ({"sigma_min": 3.0, "sigma_max": 2.0}, 5), ({"sigma_max": float("inf")}, 5)],
)
def test_schedule_of_nothing_is_refused(wrong: dict[str, float], steps: int) -> None:
    with pytest.raises(ValueError, match=r"steps|sigma_min"):
        sigmas_for(Sampling.model_construct(**{**Sampling().model_dump(), **wrong}), steps, ORDINARY, is_sdxl=False)
