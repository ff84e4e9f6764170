"""Sampling of Stable Diffusion, as AUTOMATIC1111 names and means it: part of a plan, everything decided.

Source of names and meanings: A1111 1.10.1 modules/sd_samplers*.py, sd_schedulers.py, shared_options.py.
"""

from __future__ import annotations

from typing import Literal

from engine.protocol.frozen import Frozen

SamplerName = Literal[
    "DPM++ 2M",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 2S a",
    "DPM++ 3M SDE",
    "Euler a",
    "Euler",
    "LMS",
    "Heun",
    "DPM2",
    "DPM2 a",
    "DPM fast",
    "DPM adaptive",
    "Restart",
    "DDIM",
    "DDIM CFG++",
    "PLMS",
    "UniPC",
    "LCM",
]
SECOND_ORDER: frozenset[SamplerName] = frozenset({"DPM++ SDE", "DPM++ 2S a", "Heun", "DPM2", "DPM2 a", "Restart"})
"""Samplers that call the network twice a step."""
ScheduleName = Literal[
    "Automatic",
    "Uniform",
    "Karras",
    "Exponential",
    "Polyexponential",
    "SGM Uniform",
    "KL Optimal",
    "Align Your Steps",
    "Simple",
    "Normal",
    "DDIM",
    "Beta",
]
RandomSource = Literal["CPU", "NV"]
"""Random source: torch's CPU generator, or that of NVIDIA's cards (Philox)."""
Emphasis = Literal["Original", "No norm", "Ignore", "None"]
"""What prompt weights do: see A1111's option `emphasis`."""


class Refiner(Frozen):
    """Second model that goes on with the image."""

    model: str
    """Name in the catalogue of the gateway; its file is the input `model NAME`."""
    switch_at: float
    """Share of the noise's timesteps, 0 to 1, after which the refiner takes over."""


class Sampling(Frozen):
    """How an image is sampled. Its defaults are A1111's."""

    sampler: SamplerName = "Euler"
    schedule: ScheduleName = "Automatic"
    eta: float | None = None
    """Share of fresh noise; None: the sampler's own, 1 for ancestral and SDE samplers, 0 for DDIM."""
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float | None = None
    """None: no limit."""
    s_noise: float = 1.0
    sigma_min: float | None = None
    """None: the model's own, as are `sigma_max` and the schedule's `rho`."""
    sigma_max: float | None = None
    rho: float | None = None
    discard_penultimate_sigma: bool = False
    """Always so for DPM2, DPM2 a and DPM++ 3M SDE."""
    random_source: RandomSource = "CPU"
    eta_noise_seed_delta: int = 0
    """ENSD: added to the seed of the noise that ancestral samplers add."""
    seed_resize_px: tuple[int, int] | None = None
    """Width and height whose noise is pasted into the middle."""
    clip_skip: int = 1
    """Layers of SD 1's text encoder, counted from its end, whose output is used: 1 to 12."""
    emphasis: Emphasis = "Original"
    comma_padding_backtrack: int = 20
    s_min_uncond: float = 0.0
    """Noise below which every other step omits the negative prompt."""
    skip_early_cond: float = 0.0
    """Share of the first steps that omit the negative prompt."""
    pad_cond_uncond: bool = False
    """Whether the shorter of two prompts is padded with empty chunks."""
    zero_terminal_snr: bool = False
    downcast_alphas_cumprod: bool = False
    """Whether the noise table is computed in float16, as A1111 did before 1.7."""
    old_prompt_editing: bool = False
    """Whether `[from:to:when]` counts both passes of hires fix together, as A1111 did before 1.6."""
    sgm_noise_multiplier: bool = False
    initial_noise_multiplier: float = 1.0
    """Factor of the noise of img2img."""
    img2img_extra_noise: float = 0.0
    img2img_fix_steps: bool = False
    """Whether img2img runs exactly the steps that were asked for."""
    vae: str | None = None
    """Name of a VAE file, the input `vae NAME`; None: the model's own."""
    embeddings: tuple[str, ...] = ()
    """Names of textual inversions that the prompts may mean; their files are the inputs `embedding NAME`."""
    refiner: Refiner | None = None
    first_pass_steps: int | None = None
    """In the second pass of hires fix: the steps of the pass before, as prompt editing counts them."""


def prompt_steps(steps: int, sampler: SamplerName) -> int:
    """Steps as prompt editing counts them: calls of the network."""
    return 2 * steps if sampler in SECOND_ORDER else steps


def input_name(kind: Literal["vae", "embedding", "model"], name: str) -> str:
    """Name of a file of the library among the inputs of a run; LoRAs have their own names."""
    return f"{kind} {name}"
