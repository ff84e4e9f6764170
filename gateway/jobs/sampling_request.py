"""How a client asks to sample an image of Stable Diffusion: all of it optional. Pure."""

from __future__ import annotations

from typing import Self

from pydantic import AliasChoices, ConfigDict, Field

from engine.protocol import Sampling
from gateway.lazy_model import DocumentedModel


class SamplingRequest(DocumentedModel):
    """How an image is sampled, for models of the Stable Diffusion family; null: as A1111 does by default.

    Source of the names and ranges: A1111 1.10.1 modules/shared_options.py.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    sampler: str | None = None
    """Name or alias of `GET /sdapi/v1/samplers`, in any case; a schedule at its end counts: "DPM++ 2M Karras"."""
    schedule: str | None = Field(default=None, validation_alias=AliasChoices("schedule", "scheduler"))
    """Name or label of `GET /sdapi/v1/schedulers`, in any case."""
    eta: float | None = None
    """Share of fresh noise, 0 to 1, of ancestral and SDE samplers (1) and DDIM (0)."""
    s_churn: float | None = None
    """0 to 100; Euler, Heun and DPM2, as `s_tmin` and `s_tmax`."""
    s_tmin: float | None = None
    """0 to 10."""
    s_tmax: float | None = None
    """0 to 999; 0: no limit."""
    s_noise: float | None = None
    """Factor of the noise that is added, 0 to 1.1."""
    sigma_min: float | None = None
    """Least noise of the schedule, and `sigma_max` the most; 0: the model's own."""
    sigma_max: float | None = None
    rho: float | None = None
    """Steepness of Karras (7) and Polyexponential (1); 0: the schedule's own."""
    discard_penultimate_sigma: bool | None = None
    """Whether the schedule omits its second-last noise level."""
    random_source: str | None = None
    """`CPU`: torch's generator, as A1111 on a Mac; `NV`: that of NVIDIA's cards."""
    eta_noise_seed_delta: int | None = None
    """ENSD: added to the seed of the noise that is added while sampling."""
    seed_resize_width: int | None = None
    """Width and height in pixels whose noise is pasted into the middle; 0: none."""
    seed_resize_height: int | None = None
    clip_skip: int | None = None
    """1 to 12: the layer of the text encoder, counted from its end; for Stable Diffusion 1."""
    emphasis: str | None = None
    """What prompt weights do: `Original`, `No norm`, `Ignore`, `None`."""
    comma_padding_backtrack: int | None = None
    """0 to 74: so many tokens before the end of a chunk a comma may end it."""
    s_min_uncond: float | None = None
    """0 to 15: noise below which every other step omits the negative prompt."""
    skip_early_cond: float | None = None
    """0 to 1: share of the first steps that omit the negative prompt."""
    pad_cond_uncond: bool | None = None
    """Whether the shorter of the two prompts is padded with empty chunks."""
    zero_terminal_snr: bool | None = None
    """Whether the last timestep is all noise; for models that predict v."""
    downcast_alphas_cumprod: bool | None = None
    """Whether the noise table is computed in float16, as before A1111 1.7."""
    old_prompt_editing: bool | None = None
    """Whether `[from:to:when]` counts as before A1111 1.6."""
    sgm_noise_multiplier: bool | None = None
    initial_noise_multiplier: float | None = None
    """0 to 1.5: factor of the noise of img2img."""
    img2img_extra_noise: float | None = None
    """0 to 1: noise that img2img and hires fix add."""
    img2img_fix_steps: bool | None = None
    """Whether img2img runs exactly the steps that were asked for."""
    vae: str | None = None
    """Name of a VAE file; `Automatic`: one beside the checkpoint, else the model's own; `None`: the model's own."""
    refiner: str | None = None
    """Model that goes on with the image."""
    refiner_switch_at: float | None = None
    """0 to 1: share of the noise's timesteps after which it does; 0.8 where null."""

    def over(self, other: Self) -> Self:
        """This request, with the values of the other one where it has none."""
        return other.model_copy(update={name: value for name, value in self if value is not None})

    def said(self) -> dict[str, str | int | float]:
        """The values that are set."""
        return {name: value for name, value in self if value is not None}


def request_of(sampling: Sampling) -> SamplingRequest:
    """The request that a sampling comes of: sampler, schedule, random source and VAE, and what is not the default."""
    width, height = sampling.seed_resize_px or (None, None)
    values = sampling.model_dump(exclude={"seed_resize_px", "refiner", "embeddings", "vae", "first_pass_steps"})
    defaults = Sampling().model_dump()
    named = ("sampler", "schedule", "random_source")
    return SamplingRequest(
        **{name: value for name, value in values.items() if name in named or value != defaults[name]},
        vae=sampling.vae or "None",
        seed_resize_width=width,
        seed_resize_height=height,
        refiner=None if sampling.refiner is None else sampling.refiner.model,
        refiner_switch_at=None if sampling.refiner is None else sampling.refiner.switch_at,
    )
