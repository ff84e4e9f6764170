"""Steps of ancestral samplers: down to less noise than the next level has, and up again with fresh noise."""

from __future__ import annotations


def ancestral_step(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Noise level to step down to, and the noise to add then, for a share `eta` of fresh noise.

    Source: k-diffusion 0.1.1 `get_ancestral_step`.
    """
    up = min(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - up**2) ** 0.5, up
