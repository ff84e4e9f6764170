"""Noise levels of Stable Diffusion 1."""

from __future__ import annotations

import numpy as np

_BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
_ALPHAS = np.cumprod(1.0 - _BETAS)
SIGMAS = ((1.0 - _ALPHAS) / _ALPHAS) ** 0.5
"""Standard deviation of the noise at each of the 1000 timesteps, beside latents of variance 1."""
