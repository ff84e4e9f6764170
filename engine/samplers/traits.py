"""What A1111 knows of each sampler besides its steps.

Source: A1111 1.10.1 modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py, sd_samplers_lcm.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.protocol.sampling import SamplerName, ScheduleName


@dataclass(frozen=True, slots=True)
class Traits:
    """Properties of a sampler."""

    schedule: ScheduleName = "Uniform"
    """Schedule that "Automatic" stands for."""
    discards_penultimate: bool = False
    """Whether the last noise level above 0 of a schedule longer by one is left out."""
    is_second_order: bool = False
    """Whether prompt editing counts two steps for each."""
    has_brownian_noise: bool = False
    uses_timesteps: bool = False
    """Whether it runs on whole timesteps in the variance-preserving scale, and knows no schedule."""
    eta: float = 1.0
    """Share of fresh noise where the plan has none."""


_ORDINARY = Traits()
_TIMESTEPS = Traits(uses_timesteps=True, eta=0.0)
TRAITS: dict[SamplerName, Traits] = {
    "DPM++ 2M": Traits("Karras"),
    "DPM++ SDE": Traits("Karras", is_second_order=True, has_brownian_noise=True),
    "DPM++ 2M SDE": Traits("Exponential", has_brownian_noise=True),
    "DPM++ 2M SDE Heun": Traits("Exponential", has_brownian_noise=True),
    "DPM++ 2S a": Traits("Karras", is_second_order=True),
    "DPM++ 3M SDE": Traits("Exponential", discards_penultimate=True, has_brownian_noise=True),
    "Euler a": _ORDINARY,
    "Euler": _ORDINARY,
    "LMS": _ORDINARY,
    "Heun": Traits(is_second_order=True),
    "DPM2": Traits("Karras", discards_penultimate=True, is_second_order=True),
    "DPM2 a": Traits("Karras", discards_penultimate=True, is_second_order=True),
    "DPM fast": _ORDINARY,
    "DPM adaptive": _ORDINARY,
    "Restart": Traits("Karras", is_second_order=True),
    "DDIM": _TIMESTEPS,
    "DDIM CFG++": _TIMESTEPS,
    "PLMS": _TIMESTEPS,
    "UniPC": _TIMESTEPS,
    "LCM": _ORDINARY,
}
