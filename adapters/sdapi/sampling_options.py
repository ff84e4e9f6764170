"""A1111's options for sampling Stable Diffusion: their values at the start, what they take, what they mean. Pure.

Source: A1111 1.10.1 modules/shared_options.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from adapters.sdapi.values import to_bool, to_float, to_int, to_str
from engine.protocol import Emphasis
from gateway.jobs.resolve_sampling import RANGES
from gateway.jobs.samplers import SAMPLER_BY_NAME, match
from gateway.jobs.sampling_request import SamplingRequest

ZERO_TERMINAL_SNR = "Zero Terminal SNR"
NOISE_SCHEDULES = ("Default", ZERO_TERMINAL_SNR)
RANDOM_SOURCES = ("CPU", "GPU", "NV")
SAMPLING_DEFAULTS: Mapping[str, Any] = {
    "sd_vae": "Automatic",
    "CLIP_stop_at_last_layers": 1,
    "emphasis": "Original",
    "comma_padding_backtrack": 20,
    "randn_source": "CPU",
    "eta_noise_seed_delta": 0,
    "eta_ancestral": 1.0,
    "eta_ddim": 0.0,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "s_min_uncond": 0.0,
    "sigma_min": 0.0,
    "sigma_max": 0.0,
    "rho": 0.0,
    "always_discard_next_to_last_sigma": False,
    "sgm_noise_multiplier": False,
    "sd_noise_schedule": "Default",
    "skip_early_cond": 0.0,
    "pad_cond_uncond": False,
    "initial_noise_multiplier": 1.0,
    "img2img_extra_noise": 0.0,
    "img2img_fix_steps": False,
    "use_downcasted_alpha_bar": False,
    "use_old_scheduling": False,
}
"""The random source is that of a Mac; all others are A1111's own."""
FIELDS: Mapping[str, str] = {
    "sd_vae": "vae",
    "CLIP_stop_at_last_layers": "clip_skip",
    "emphasis": "emphasis",
    "comma_padding_backtrack": "comma_padding_backtrack",
    "randn_source": "random_source",
    "eta_noise_seed_delta": "eta_noise_seed_delta",
    "eta_ancestral": "eta",
    "eta_ddim": "eta",
    "s_churn": "s_churn",
    "s_tmin": "s_tmin",
    "s_tmax": "s_tmax",
    "s_noise": "s_noise",
    "s_min_uncond": "s_min_uncond",
    "sigma_min": "sigma_min",
    "sigma_max": "sigma_max",
    "rho": "rho",
    "always_discard_next_to_last_sigma": "discard_penultimate_sigma",
    "sgm_noise_multiplier": "sgm_noise_multiplier",
    "sd_noise_schedule": "zero_terminal_snr",
    "skip_early_cond": "skip_early_cond",
    "pad_cond_uncond": "pad_cond_uncond",
    "initial_noise_multiplier": "initial_noise_multiplier",
    "img2img_extra_noise": "img2img_extra_noise",
    "img2img_fix_steps": "img2img_fix_steps",
    "use_downcasted_alpha_bar": "downcast_alphas_cumprod",
    "use_old_scheduling": "old_prompt_editing",
}
"""Fields of a `SamplingRequest` by option."""
ETAS = ("eta_ancestral", "eta_ddim")
VAE_CHARS = 256


def _within(name: str, to_value: Callable[[object], Any]) -> Callable[[object], Any]:
    least, most = RANGES[FIELDS[name]]

    def checked(value: object) -> Any:
        if least <= (number := to_value(value)) <= most:
            return number
        raise ValueError

    return checked


def _one_of(*names: str) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise ValueError

    return checked


def _name(value: object) -> str:
    if len(name := to_str(value)) <= VAE_CHARS:
        return name
    raise ValueError


def _checked(name: str, default: object) -> Callable[[object], Any]:
    match default:
        case bool():
            return to_bool
        case int():
            return _within(name, to_int)
        case float():
            return _within(name, to_float)
        case _:
            return _name


SAMPLING_OPTIONS: Mapping[str, Callable[[object], Any]] = {
    **{name: _checked(name, default) for name, default in SAMPLING_DEFAULTS.items()},
    "emphasis": _one_of(*get_args(Emphasis)),
    "randn_source": _one_of(*RANDOM_SOURCES),
    "sd_noise_schedule": _one_of(*NOISE_SCHEDULES),
}
"""What POST /options and `override_settings` can set, for Stable Diffusion. Each raises ValueError for another value,
or PydanticCustomError.
"""


def sampling_of_options(values: Mapping[str, Any], sampler: str) -> SamplingRequest:
    """The sampling that accepted options ask for; of the two etas the one that this sampler reads counts."""
    found = match(sampler).sampler
    is_ddim = found is not None and SAMPLER_BY_NAME[found].eta_key != "Eta"
    unread = ETAS[0] if is_ddim else ETAS[1]
    fields = {FIELDS[name]: values[name] for name in SAMPLING_OPTIONS if name in values and name != unread}
    if "zero_terminal_snr" in fields:
        fields["zero_terminal_snr"] = fields["zero_terminal_snr"] == ZERO_TERMINAL_SNR
    return SamplingRequest(**fields)
