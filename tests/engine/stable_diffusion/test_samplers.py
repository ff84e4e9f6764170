"""What holds for all samplers: how often they evaluate and report, where they begin, what they refuse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from engine.protocol.sampling import SamplerName, Sampling, ScheduleName  # noqa: E402
from engine.samplers.ancestral import ancestral_step  # noqa: E402
from engine.samplers.ddim import timesteps_for  # noqa: E402
from engine.samplers.dpm_solver import dpm_adaptive, orders_of  # noqa: E402
from engine.samplers.euler import multistep_weights  # noqa: E402
from engine.samplers.img2img import part_to_run  # noqa: E402
from engine.samplers.interfaces import Run  # noqa: E402
from engine.samplers.noise_levels import NoiseLevels  # noqa: E402
from engine.samplers.restart import restart_steps  # noqa: E402
from engine.samplers.samplers import plan_sampling  # noqa: E402
from engine.samplers.traits import TRAITS  # noqa: E402
from tests.engine.stable_diffusion.toy_network import Noise, ToyDenoiser, init_latents, sample  # noqa: E402

LEVELS = NoiseLevels()
SAMPLERS = st.sampled_from(get_args(SamplerName))
SCHEDULES = st.sampled_from(get_args(ScheduleName))
FEW = settings(max_examples=30)


def planned(sampler: Any, steps: int, **more: Any) -> Any:
    fields = {name: more.pop(name) for name in list(more) if name in Sampling.model_fields}
    return plan_sampling(Sampling(sampler=sampler, **fields), steps, LEVELS, is_sdxl=False, **more)


@settings(max_examples=60)
@given(SAMPLERS, SCHEDULES, st.integers(1, 22), st.none() | st.floats(0.02, 1.0), st.booleans(), st.booleans())
def test_sampler_evaluates_and_reports_as_often_as_planned(
    sampler: Any, schedule: Any, steps: int, denoise: float | None, second_pass: bool, discards: bool
) -> None:
    sampling = {"sampler": sampler, "schedule": schedule, "discard_penultimate_sigma": discards}
    case = {"sampling": sampling, "steps": steps, "denoise": denoise, "second_pass": second_pass}
    latents, denoiser, run, reported = sample(case)
    assert np.isfinite(latents).all()
    assert latents.dtype == np.float32
    assert reported == list(range(len(reported)))
    assert 1 <= len(denoiser.sigmas) <= run.calls
    if run.calls != 900:
        assert (len(denoiser.sigmas), len(reported)) == (run.calls, run.steps)


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_sampler_ends_at_the_image_that_the_network_knows(sampler: Any) -> None:
    """A network that finds the same image in any latents; without noise added, all lead there."""
    image = init_latents()

    class Certain(ToyDenoiser):
        def __call__(self, x: Any, sigma: float, timestep: float | None = None) -> Any:
            self.unconditional = image
            return image

    run = planned(sampler, 12, eta=0.0)
    noise = Noise(Sampling(sampler=sampler), run)
    latents = run.run(Certain(LEVELS, run), run.start(noise.next()), noise, lambda step, denoised: None)
    assert np.abs(np.array(latents - image)).max() < 0.15, "what is left has the lowest noise level"


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_step_that_raises_ends_the_run(sampler: Any) -> None:
    run = planned(sampler, 6)
    noise, denoiser = Noise(Sampling(sampler=sampler), run), ToyDenoiser(LEVELS, run)

    def stop(step: int, denoised: Any) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run.run(denoiser, run.start(noise.next()), noise, stop)
    assert len(denoiser.sigmas) <= 3


@FEW
@given(SAMPLERS, st.integers(1, 40))
def test_prompts_count_two_steps_for_samplers_of_second_order(sampler: Any, steps: int) -> None:
    second = sampler in ("DPM++ SDE", "DPM++ 2S a", "Heun", "DPM2", "DPM2 a", "Restart")
    for denoise in (None, 0.5):
        assert planned(sampler, steps, denoise=denoise).steps_per_prompt == steps * (2 if second else 1)


@FEW
@given(st.sampled_from(["DDIM", "DDIM CFG++", "PLMS", "UniPC"]), SCHEDULES, st.integers(1, 40))
def test_samplers_on_timesteps_ignore_a_schedule(sampler: Any, schedule: Any, steps: int) -> None:
    plain, other = planned(sampler, steps), planned(sampler, steps, schedule=schedule, rho=3.0, sigma_max=9.0)
    assert (plain.calls, plain.noise_factor) == (other.calls, other.noise_factor)
    assert other.blends_before
    assert not planned("Euler", steps).blends_before


@FEW
@given(st.integers(1, 60), st.floats(0.01, 1.0))
def test_img2img_runs_its_share_of_the_steps_and_one_more(steps: int, denoise: float) -> None:
    part = part_to_run(steps, denoise, fixed_steps=False)
    assert (part.steps, part.last) == (steps, int(min(denoise, 0.999) * steps))
    fixed = part_to_run(steps, denoise, fixed_steps=True)
    assert fixed.last + 1 == steps
    assert fixed.steps >= steps
    assert planned("Euler", steps, denoise=denoise).calls == part.last + 1
    assert planned("Euler", steps, denoise=denoise, second_pass=True).calls == steps
    assert planned("Euler", steps, denoise=denoise, fixed_steps=True).calls == steps
    assert planned("Euler", steps, denoise=denoise, img2img_fix_steps=True).calls == steps


def test_part_of_a_long_schedule_is_bounded() -> None:
    assert part_to_run(20, 1e-300, fixed_steps=True).steps == 10_000
    assert part_to_run(20_000, 0.9, fixed_steps=True).steps == 20_000


def test_ten_steps_at_six_tenths_are_seven() -> None:
    assert planned("Euler", 10, denoise=0.6).calls == 7


@pytest.mark.parametrize(
    ("steps", "more"),
    [(0, {}), (0, {"denoise": 0.5}), (5, {"denoise": 1.5}), (5, {"denoise": -0.1}), (5, {"denoise": float("nan")})],
)
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_pass_of_no_steps_or_a_denoise_out_of_range_is_refused(sampler: str, steps: int, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"steps|denoise"):
        planned(sampler, steps, **more)


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_second_pass_without_denoise_keeps_the_latents(sampler: str) -> None:
    latents, denoiser, run, reported = sample(
        {"sampling": {"sampler": sampler}, "steps": 5, "denoise": 0.0, "second_pass": True}
    )
    assert np.array_equal(latents, np.array(init_latents()))
    assert (run.calls, run.steps, denoiser.sigmas, reported) == (0, 0, [], [])


@pytest.mark.parametrize("schedule", get_args(ScheduleName))
@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "LMS", "LCM", "UniPC"])
def test_second_pass_of_little_denoise_runs_the_end_of_a_long_schedule(sampler: str, schedule: str) -> None:
    """Some of these schedules repeat levels, and DDIM has fewer of them than steps."""
    sampling = {"sampler": sampler, "schedule": schedule}
    latents, denoiser, run, _ = sample({"sampling": sampling, "steps": 4, "denoise": 1e-3, "second_pass": True})
    assert np.isfinite(latents).all()
    assert 1 <= len(denoiser.sigmas) == run.calls <= 5
    assert max(denoiser.sigmas) < 0.5


def test_start_takes_latents_exactly_where_there_is_a_denoise() -> None:
    noise = init_latents()
    with pytest.raises(ValueError, match="latents are needed"):
        planned("Euler", 5).start(noise, noise)
    with pytest.raises(ValueError, match="latents are needed"):
        planned("Euler", 5, denoise=0.5).start(noise)


def test_noise_multiplier_is_for_img2img_only() -> None:
    plain = planned("Euler", 8, denoise=0.5)
    assert planned("Euler", 8, denoise=0.5, initial_noise_multiplier=0.5).noise_factor == plain.noise_factor / 2
    plain = planned("Euler", 8, denoise=0.5, second_pass=True)
    more = planned("Euler", 8, denoise=0.5, second_pass=True, initial_noise_multiplier=0.5)
    assert more.noise_factor == plain.noise_factor


def test_brownian_motion_is_over_the_whole_schedule_in_img2img() -> None:
    assert planned("DPM++ SDE", 10, denoise=0.3).brownian_range == planned("DPM++ SDE", 10).brownian_range
    assert planned("Euler a", 10).brownian_range is None


@FEW
@given(st.integers(1, 200))
def test_orders_of_dpm_fast_add_up_to_its_evaluations(evaluations: int) -> None:
    orders = orders_of(evaluations)
    assert sum(orders) == evaluations
    assert set(orders) <= {1, 2, 3}


@FEW
@given(st.integers(1, 1200))
def test_timesteps_rise_from_1_and_end_before_1000(steps: int) -> None:
    timesteps = timesteps_for(steps)
    assert timesteps[0] == 1
    assert sorted(timesteps) == timesteps
    assert timesteps[-1] <= 999
    assert len(timesteps) >= min(steps, 1000)


@FEW
@given(st.floats(0.01, 1.0), st.floats(0.01, 0.99), st.floats(0.0, 1.0))
def test_ancestral_step_keeps_the_variance_of_the_next_level(sigma: float, share: float, eta: float) -> None:
    down, up = ancestral_step(sigma, sigma * share, eta)
    assert down**2 + up**2 == pytest.approx((sigma * share) ** 2)
    assert up == 0 or eta > 0


@FEW
@given(st.lists(st.floats(0.1, 1.0), min_size=1, max_size=4), st.integers(0, 3))
def test_multistep_weights_integrate_polynomials_exactly(gaps: list[float], power: int) -> None:
    levels = [float(level) for level in np.cumsum(gaps)[::-1] + 0.2]
    if power < len(levels):
        weights = multistep_weights(levels, 0.1)
        total = sum(weight * level**power for weight, level in zip(weights, levels, strict=True))
        exact = (0.1 ** (power + 1) - levels[0] ** (power + 1)) / (power + 1)
        assert total == pytest.approx(exact, rel=1e-6, abs=1e-9)


@FEW
@given(st.integers(2, 80))
def test_restart_goes_up_once_or_twice_from_20_steps_on(steps: int) -> None:
    pairs = restart_steps([float(sigma) for sigma in np.geomspace(14.6, 0.03, steps)] + [0.0])
    ups = sum(before[1] < after[0] for before, after in pairwise(pairs))
    assert ups == (0 if steps < 20 else 1 if steps < 36 else 2)
    assert pairs[-1][1] == 0.0
    assert len(pairs) == steps


def test_adaptive_sampler_returns_latents_that_are_not_finite() -> None:
    class Broken(ToyDenoiser):
        def __call__(self, x: Any, sigma: float, timestep: float | None = None) -> Any:
            self.sigmas.append(sigma)
            return x * float("nan")

    run = planned("DPM adaptive", 5)
    noise, broken = Noise(Sampling(), run), Broken(LEVELS, run)
    assert np.isnan(np.array(run.run(broken, run.start(noise.next()), noise, lambda step, denoised: None))).all()
    assert len(broken.sigmas) == 3


def test_adaptive_sampler_that_comes_to_no_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.samplers.dpm_solver.MOST_ADAPTIVE_STEPS", 2)
    run = planned("DPM adaptive", 5)
    noise = Noise(Sampling(), run)
    with pytest.raises(ArithmeticError, match="2 steps"):
        dpm_adaptive(Run(ToyDenoiser(LEVELS, run), noise, lambda step, denoised: None), noise.next(), 14.0, 0.03, 1.0)


def test_every_sampler_has_traits() -> None:
    assert set(TRAITS) == set(get_args(SamplerName))
