"""Latents of each sampler are those that A1111's own code makes of the same network and seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("mlx.core")

from tests.engine.stable_diffusion.toy_network import CASES, golden_arrays, sample

GOLDEN = golden_arrays()
SAMPLERS = CASES["samplers"]


def name_of(index: int) -> str:
    case = SAMPLERS[index]
    return ", ".join(f"{name} {value}" for name, value in {**case["sampling"], **case}.items() if name != "sampling")


def tolerance_of(case: dict[str, Any]) -> float:
    """Largest difference, in parts of the largest latent."""
    sampling = case["sampling"]
    if sampling["sampler"] == "DDIM" and "downcast_alphas_cumprod" in sampling:
        return 1e-3  # A1111 rounds the root of 1 - alpha to float16, too.
    # Latents with a noise level of 4500 have single precision of their own.
    return 2e-3 if "zero_terminal_snr" in sampling else 1e-4


@pytest.mark.parametrize("index", range(len(SAMPLERS)), ids=name_of)
def test_sampler_makes_the_latents_of_a1111(index: int) -> None:
    case, expected = SAMPLERS[index], GOLDEN[f"latents {index}"]
    latents, denoiser, run, steps = sample(case)
    assert np.abs(latents - expected).max() / np.abs(expected).max() < tolerance_of(case)
    assert len(denoiser.sigmas) == case["calls"]
    if case["sampling"]["sampler"] == "DPM adaptive":
        assert case["calls"] <= run.calls
    else:
        assert (run.calls, run.steps) == (case["calls"], len(steps))
