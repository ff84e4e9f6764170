"""Noise of Stable Diffusion from a seed, with the values of PyTorch's generators; NumPy only.

It knows no model: its shapes are (channels, height, width) in latent pixels, as PyTorch lays noise out.
"""

from __future__ import annotations

from engine.noise.brownian import BrownianNoise
from engine.noise.cpu_generator import CpuGenerator
from engine.noise.generators import NormalGenerator, create_generator
from engine.noise.image_noise import ImageNoise
from engine.noise.philox import PhiloxGenerator

__all__ = [
    "BrownianNoise",
    "CpuGenerator",
    "ImageNoise",
    "NormalGenerator",
    "PhiloxGenerator",
    "create_generator",
]
