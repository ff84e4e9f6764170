"""Guidance by a prompt and a negative prompt, with a network whose answers are its conditions' numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from engine.pipelines.stable_diffusion.guidance import GuidanceRule, GuidedDenoiser, Part
from engine.pipelines.stable_diffusion.masks import LatentMask
from engine.pipelines.stable_diffusion.network import Condition

X = mx.zeros((1, 1, 2, 4))


def condition(number: float) -> Condition:
    return Condition(mx.full((1, 77, 1), number))


class Numbers:
    """Network that denoises to the number of each condition, and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    def nearest_timestep(self, sigma: float) -> float:
        return 999 - sigma

    def denoise(
        self, x: mx.array, sigma: float, timestep: Any, conditions: Sequence[Condition], extra: Any
    ) -> list[mx.array]:
        numbers = [float(one.context[0, 0, 0].item()) for one in conditions]
        self.calls.append(numbers)
        return [mx.full(x.shape, number) for number in numbers]


class Fixed:
    def __init__(self, prompts: list[tuple[float, float]], negative: float) -> None:
        self._prompts = [(weight, condition(number)) for weight, number in prompts]
        self._negative = condition(negative)

    def at(self, call: int) -> tuple[list[tuple[float, Condition]], Condition]:
        return self._prompts, self._negative


def guided(
    prompts: list[tuple[float, float]], negative: float, scale: float, sigmas: Sequence[float] = (1.0,), **rule: Any
) -> tuple[list[float], Numbers]:
    network: Any = Numbers()
    denoiser = GuidedDenoiser(
        Part(network, Fixed(prompts, negative)), GuidanceRule(scale, len(sigmas), **rule), check=lambda: None
    )
    return [float(denoiser(X, sigma)[0, 0, 0, 0].item()) for sigma in sigmas], network


def test_result_is_the_negative_image_plus_the_scaled_difference() -> None:
    assert guided([(1.0, 3.0)], 1.0, 7.0)[0] == [1 + 7 * (3 - 1)]


def test_prompts_joined_by_and_add_their_weighted_differences() -> None:
    assert guided([(1.0, 3.0), (0.5, 5.0)], 1.0, 4.0)[0] == [1 + 4 * (3 - 1) + 0.5 * 4 * (5 - 1)]


def test_guidance_of_one_needs_no_negative_prompt() -> None:
    found, network = guided([(1.0, 3.0)], 1.0, 1.0)
    assert (found, network.calls) == ([3.0], [[3.0]])


def test_guidance_of_one_with_several_prompts_is_their_weighted_mean() -> None:
    found, network = guided([(0.25, 3.0), (0.75, 7.0)], 1.0, 1.0)
    assert (found, network.calls) == ([0.25 * 3 + 0.75 * 7], [[3.0, 7.0]])


def test_negative_prompt_is_omitted_at_odd_calls_below_the_sigma() -> None:
    found, network = guided([(1.0, 3.0)], 1.0, 7.0, (2.0, 2.0, 0.5, 0.5), s_min_uncond=1.0)
    assert found == [15, 15, 15, 3]
    assert [len(call) for call in network.calls] == [2, 2, 2, 1]


def test_negative_prompt_is_omitted_at_the_first_share_of_calls() -> None:
    found, _ = guided([(1.0, 3.0)], 1.0, 7.0, (1.0,) * 4, skip_early_cond=0.25)
    assert found == [3, 3, 15, 15]


def test_prompts_joined_by_and_are_not_scaled_where_the_negative_prompt_is_skipped() -> None:
    found, _ = guided([(1.0, 3.0), (0.5, 5.0)], 1.0, 4.0, (1.0, 1.0), skip_early_cond=0.1)
    assert found == [3 + 0.5 * (5 - 3), 1 + 4 * (3 - 1) + 0.5 * 4 * (5 - 1)]


def test_sampler_on_timesteps_compares_the_timestep() -> None:
    network: Any = Numbers()
    rule = GuidanceRule(7.0, 4, s_min_uncond=2.0)
    denoiser = GuidedDenoiser(Part(network, Fixed([(1.0, 3.0)], 1.0)), rule, check=lambda: None, masks_input=True)
    for timestep in (41.0, 21.0, 1.0, 1.0):
        denoiser(X, 0.03, timestep)
    assert [len(call) for call in network.calls] == [2, 2, 2, 1]


def test_sampler_that_needs_the_unguided_image_gets_it_at_guidance_one() -> None:
    _, network = guided([(1.0, 3.0)], 1.0, 1.0, always_unconditional=True)
    assert network.calls == [[3.0, 1.0]]


@pytest.mark.parametrize(("masks_input", "expected"), [(False, [15.0, 9.0]), (True, [15.0, 15.0])])
def test_kept_part_of_an_image_replaces_the_denoised_one(masks_input: bool, expected: list[float]) -> None:
    network: Any = Numbers()
    mask = LatentMask(mx.array([[[[1.0], [0.0]]]]), mx.full(X.shape, 9.0))
    denoiser = GuidedDenoiser(
        Part(network, Fixed([(1.0, 3.0)], 1.0)),
        GuidanceRule(7.0, 1),
        check=lambda: None,
        mask=mask,
        masks_input=masks_input,
    )
    assert np.asarray(denoiser(X, 1.0))[0, 0, :, 0].tolist() == expected
    kept = np.asarray(denoiser.before(X))[0, 0, :, 0].tolist()
    assert kept == ([0.0, 9.0] if masks_input else [0.0, 0.0])


def test_refiner_takes_over_at_its_share_of_the_timesteps() -> None:
    base, refiner = Numbers(), Numbers()
    parts = [Part(one, Fixed([(1.0, 3.0)], 1.0)) for one in (base, refiner)]  # type: ignore[arg-type]
    denoiser = GuidedDenoiser(
        parts[0], GuidanceRule(7.0, 4), check=lambda: None, switch_at=0.8, refiner=lambda: parts[1]
    )
    for sigma in (0.0, 400.0, 800.0, 900.0):  # numbered as the timesteps that are done
        denoiser(X, sigma)
    assert (len(base.calls), len(refiner.calls)) == (2, 2)


def test_job_is_stopped_before_the_next_call() -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    network: Any = Numbers()
    stopping: Callable[[], None] = stop
    denoiser = GuidedDenoiser(Part(network, Fixed([(1.0, 3.0)], 1.0)), GuidanceRule(7.0, 1), check=stopping)
    with pytest.raises(Stopped):
        denoiser(X, 1.0)
    assert network.calls == []
