"""A1111's own samplers, schedules and noise, without its window, its models and its settings.

They are read from a checkout of AUTOMATIC1111/stable-diffusion-webui 1.10.1. Of k-diffusion only its samplers and its
table of noise levels are loaded.
"""

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

DEFAULTS = {
    "always_discard_next_to_last_sigma": False,
    "beta_dist_alpha": 0.6,
    "beta_dist_beta": 0.6,
    "enable_quantization": False,
    "eta_ancestral": 1.0,
    "eta_ddim": 0.0,
    "eta_noise_seed_delta": 0,
    "hide_samplers": [],
    "img2img_extra_noise": 0.0,
    "img2img_fix_steps": False,
    "no_dpmpp_sde_batch_determinism": False,
    "randn_source": "CPU",
    "rho": 0.0,
    "sd_noise_schedule": "Default",
    "sgm_noise_multiplier": False,
    "sigma_max": 0.0,
    "sigma_min": 0.0,
    "uni_pc_lower_order_final": True,
    "uni_pc_order": 3,
    "uni_pc_skip_type": "time_uniform",
    "uni_pc_variant": "bh1",
    "use_downcasted_alpha_bar": False,
    "use_old_karras_scheduler_sigmas": False,
}
GUIDANCE = 1.5
options = SimpleNamespace(**DEFAULTS)
shared = ModuleType("modules.shared")


@contextmanager
def settings(**changed):
    """Run with other settings than A1111's defaults."""
    vars(options).update(changed)
    try:
        yield
    finally:
        vars(options).update(DEFAULTS)


class ToyModel(torch.nn.Module):
    """Model whose network is `predict(x, timestep, is_conditional)`, with A1111's table of noise levels."""

    def __init__(self, predict, parameterization: str, *, is_sdxl: bool) -> None:
        super().__init__()
        self.predict, self.parameterization, self.is_sdxl = predict, parameterization, is_sdxl
        self.calls = 0
        self.model = SimpleNamespace(conditioning_key="crossattn")
        self.device = torch.device("cpu")
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1.0 - betas, 0).float()
        self.alphas_cumprod_original = self.alphas_cumprod = alphas

    def apply_model(self, x, timestep, cond):
        """The guided prediction, or that of the negative prompt."""
        timestep = timestep.view(-1, 1, 1, 1)
        negative = self.predict(x, timestep, False)
        if cond is None:
            return negative
        self.calls += 1
        return negative + cond * (self.predict(x, timestep, True) - negative)


class GuidedDenoiser(torch.nn.Module):
    """Stand-in for A1111's `CFGDenoiser`, with what samplers read and write of it."""

    mask_before_denoising = padded_cond_uncond = padded_cond_uncond_v0 = False

    def __init__(self, sampler) -> None:
        super().__init__()
        self.sampler = sampler
        self.model_wrap = None
        self.cond_scale_miltiplier = 1.0
        self.need_last_noise_uncond = False
        self.last_noise_uncond = None
        self.mask = self.nmask = self.init_latent = None

    def forward(self, x, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond):
        """The guided prediction."""
        if self.mask_before_denoising:
            x = self._blend(x)
        if self.need_last_noise_uncond:
            self.last_noise_uncond = self.inner_model(x, sigma, cond=None)
        found = self.inner_model(x, sigma, cond=cond_scale * self.cond_scale_miltiplier)
        return found if self.mask_before_denoising else self._blend(found)

    def _blend(self, latents):
        return latents if self.mask is None else latents * self.nmask + self.init_latent * self.mask


def _module(name: str, **contents) -> ModuleType:
    module = sys.modules.setdefault(name, ModuleType(name))
    vars(module).update(contents)
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, module)
    return module


def _load_k_diffusion() -> tuple[ModuleType, ModuleType]:
    """Its modules of samplers and of noise levels; the others need what trains models."""
    found = importlib.util.find_spec("k_diffusion")
    package = _module("k_diffusion", __path__=list(found.submodule_search_locations))
    _module("k_diffusion.utils", append_dims=lambda x, count: x[(...,) + (None,) * (count - x.ndim)])
    package.sampling = importlib.import_module("k_diffusion.sampling")
    package.external = importlib.import_module("k_diffusion.external")
    return package.sampling, package.external


sampling, external = _load_k_diffusion()


def load(folder: Path) -> SimpleNamespace:
    """A1111's modules `rng`, `sd_models` (its functions of noise levels), `sd_samplers`."""
    cpu = torch.device("cpu")
    _module("modules", __path__=[str(folder / "modules")])
    sys.modules["modules.shared"] = shared
    _module(
        "modules.shared",
        opts=options,
        device=cpu,
        state=SimpleNamespace(sampling_step=0, sampling_steps=0),
        total_tqdm=SimpleNamespace(update=lambda: None),
        sd_model=None,
    )
    _module("modules.devices", device=cpu, cpu=cpu)
    for name in ("images", "sd_vae_approx", "sd_vae_taesd"):
        _module(f"modules.{name}")
    _module("modules.script_callbacks", ExtraNoiseParams=_extra_noise, extra_noise_callback=lambda params: None)
    _module("modules.sd_samplers_cfg_denoiser", CFGDenoiser=GuidedDenoiser)
    _module("modules.sd_models", **_functions_of_noise_levels(folder / "modules" / "sd_models.py"))
    # Of each other they need only names, so each sees the others empty at first.
    _module("modules.sd_samplers")
    rng = importlib.import_module("modules.rng")
    importlib.import_module("modules.sd_samplers_common")
    del sys.modules["modules.sd_samplers"]
    samplers = importlib.import_module("modules.sd_samplers")
    return SimpleNamespace(rng=rng, samplers=samplers, levels=sys.modules["modules.sd_models"])


def _extra_noise(noise, x, xi):
    return SimpleNamespace(noise=noise, x=x, xi=xi)


def _functions_of_noise_levels(file: Path) -> dict:
    """`apply_alpha_schedule_override` and what it calls; the rest of the file needs all of A1111."""
    text = file.read_text(encoding="utf-8")
    begin = text.index("def rescale_zero_terminal_snr_abar")
    names = {"opts": options, "shared": shared}
    exec(compile(text[begin : text.index("\nsd1_clip_weight")], str(file), "exec"), names)  # noqa: S102
    return {name: names[name] for name in ("rescale_zero_terminal_snr_abar", "apply_alpha_schedule_override")}
