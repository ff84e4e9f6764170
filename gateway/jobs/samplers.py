"""Samplers and schedules of Stable Diffusion by A1111's names and aliases, and what each sampler reads. Pure.

Source: A1111 1.10.1 modules/sd_samplers*.py, sd_schedulers.py: names, aliases, options, order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.protocol import SamplerName, ScheduleName

AUTOMATIC: ScheduleName = "Automatic"
DEFAULT_SAMPLER: SamplerName = "DPM++ 2M"
"""A1111's first sampler, which it takes for a name that it does not know."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """One sampler: its aliases, and which values of a `Sampling` it reads."""

    name: SamplerName
    aliases: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """As A1111 lists them."""
    own_schedule: ScheduleName = AUTOMATIC
    """The schedule that Automatic means."""
    has_schedule: bool = True
    """Whether it reads a schedule; the others have their own timesteps."""
    default_eta: float | None = None
    """Share of fresh noise; None: it adds none."""
    churns: bool = False
    """Whether it reads s_churn, s_tmin and s_tmax."""
    has_noise_scale: bool = False
    """Whether it reads s_noise."""
    eta_key: str = "Eta"
    """Key of the eta in an infotext."""


def _sde(name: SamplerName, alias: str, **more: Any) -> Sampler:
    return Sampler(
        name,
        (alias,),
        {"scheduler": "exponential", **more, "brownian_noise": True},
        own_schedule="Exponential",
        default_eta=1.0,
        has_noise_scale=True,
    )


def _timesteps(name: SamplerName, alias: str, eta: float | None = None) -> Sampler:
    return Sampler(name, (alias,), has_schedule=False, default_eta=eta, eta_key="Eta DDIM")


_KARRAS = {"scheduler": "karras"}
_LAST_OF_TWO = {"discard_next_to_last_sigma": True}
_SECOND = {"second_order": True}
_ENSD = {"uses_ensd": True}
SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), _KARRAS, own_schedule="Karras"),
    Sampler(
        "DPM++ SDE",
        ("k_dpmpp_sde",),
        {**_KARRAS, **_SECOND, "brownian_noise": True},
        own_schedule="Karras",
        default_eta=1.0,
        has_noise_scale=True,
    ),
    _sde("DPM++ 2M SDE", "k_dpmpp_2m_sde"),
    Sampler(
        "DPM++ 2M SDE Heun",
        ("k_dpmpp_2m_sde_heun",),
        {"scheduler": "exponential", "brownian_noise": True, "solver_type": "heun"},
        own_schedule="Exponential",
        default_eta=1.0,
        has_noise_scale=True,
    ),
    Sampler(
        "DPM++ 2S a",
        ("k_dpmpp_2s_a",),
        {**_KARRAS, **_ENSD, **_SECOND},
        own_schedule="Karras",
        default_eta=1.0,
        has_noise_scale=True,
    ),
    _sde("DPM++ 3M SDE", "k_dpmpp_3m_sde", **_LAST_OF_TWO),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral"), _ENSD, default_eta=1.0),
    Sampler("Euler", ("k_euler",), churns=True, has_noise_scale=True),
    Sampler("LMS", ("k_lms",)),
    Sampler("Heun", ("k_heun",), _SECOND, churns=True, has_noise_scale=True),
    Sampler(
        "DPM2",
        ("k_dpm_2",),
        {**_KARRAS, **_LAST_OF_TWO, **_SECOND},
        own_schedule="Karras",
        churns=True,
        has_noise_scale=True,
    ),
    Sampler(
        "DPM2 a",
        ("k_dpm_2_a",),
        {**_KARRAS, **_LAST_OF_TWO, **_ENSD, **_SECOND},
        own_schedule="Karras",
        default_eta=1.0,
        has_noise_scale=True,
    ),
    Sampler("DPM fast", ("k_dpm_fast",), _ENSD, default_eta=1.0, has_noise_scale=True),
    Sampler("DPM adaptive", ("k_dpm_ad",), _ENSD, default_eta=1.0),
    Sampler("Restart", ("restart",), {**_KARRAS, **_SECOND}, own_schedule="Karras"),
    _timesteps("DDIM", "ddim", 0.0),
    _timesteps("DDIM CFG++", "ddim_cfgpp", 0.0),
    _timesteps("PLMS", "plms"),
    _timesteps("UniPC", "unipc"),
    Sampler("LCM", ("k_lcm",)),
)
"""In A1111's order. What they read is by the signatures of their functions and `sampler_extra_params`."""
SAMPLER_BY_NAME: Mapping[str, Sampler] = {sampler.name: sampler for sampler in SAMPLERS}


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule: A1111's name, its label, which infotexts have, and further names."""

    name: str
    label: ScheduleName
    aliases: tuple[str, ...] = ()
    default_rho: float = -1
    """-1: it has no rho."""
    needs_model: bool = False
    """Whether it reads the model's own noise levels."""


SCHEDULES: tuple[Schedule, ...] = (
    Schedule("automatic", "Automatic"),
    Schedule("uniform", "Uniform", needs_model=True),
    Schedule("karras", "Karras", default_rho=7.0),
    Schedule("exponential", "Exponential"),
    Schedule("polyexponential", "Polyexponential", default_rho=1.0),
    Schedule("sgm_uniform", "SGM Uniform", ("SGMUniform",), needs_model=True),
    Schedule("kl_optimal", "KL Optimal"),
    Schedule("align_your_steps", "Align Your Steps"),
    Schedule("simple", "Simple", needs_model=True),
    Schedule("normal", "Normal", needs_model=True),
    Schedule("ddim", "DDIM", needs_model=True),
    Schedule("beta", "Beta", needs_model=True),
)
"""In A1111's order."""
SCHEDULE_BY_LABEL: Mapping[str, Schedule] = {schedule.label: schedule for schedule in SCHEDULES}

K_DIFFUSION_SAMPLERS: Mapping[str, str] = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "euler_a": "Euler a",
    "lms": "LMS",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddim": "DDIM",
    "plms": "PLMS",
    "uni_pc": "UniPC",
    "lcm": "LCM",
}
"""A1111's names of samplers that other programs name after k-diffusion's functions."""
OTHER_SCHEDULES: Mapping[str, str] = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "ddim_uniform": "DDIM",
    "simple": "Simple",
    "beta": "Beta",
}
"""A1111's names of schedules of other programs."""

_NAMES: dict[str, SamplerName] = {
    **{name: SAMPLER_BY_NAME[known].name for name, known in K_DIFFUSION_SAMPLERS.items()},
    **{alias.lower(): sampler.name for sampler in SAMPLERS for alias in (sampler.name, *sampler.aliases)},
}
_SCHEDULE_NAMES: dict[str, ScheduleName] = {
    **{name: SCHEDULE_BY_LABEL[known].label for name, known in OTHER_SCHEDULES.items()},
    **{
        alias.lower(): schedule.label
        for schedule in SCHEDULES
        for alias in (schedule.label, schedule.name, *schedule.aliases)
    },
}


def name_in_a1111(name: str, names: Mapping[str, str]) -> str:
    """A1111's name of a sampler or schedule of another program; the name itself if A1111 has none."""
    plain = name.lower()
    return names.get(plain, names.get(plain.removeprefix("k_"), name))


@dataclass(frozen=True, slots=True)
class Matched:
    """A sampler and a schedule by names; None: there is no such one, or, of a schedule, none is named."""

    sampler: SamplerName | None
    schedule: ScheduleName | None


def match(sampler: str, schedule: str | None = None) -> Matched:
    """The sampler of a name or alias in any case; a schedule at the name's end goes before `schedule`.

    Infotexts of A1111 before 1.9 name both at once: "DPM++ 2M Karras".
    """
    name = " ".join(sampler.split()).lower()
    found = None if schedule is None else match_schedule(schedule)
    if name not in _NAMES:
        for known, label in _SCHEDULE_NAMES.items():
            if name.endswith(f" {known}") and name[: -len(known) - 1] in _NAMES:
                return Matched(_NAMES[name[: -len(known) - 1]], label)
    return Matched(_NAMES.get(name, _NAMES.get(name.removeprefix("k_"))), found)


def match_schedule(schedule: str) -> ScheduleName | None:
    """The schedule of a name or label in any case; None where there is none."""
    return _SCHEDULE_NAMES.get(" ".join(schedule.split()).lower())


def plain_schedule(sampler: SamplerName, schedule: ScheduleName) -> ScheduleName:
    """Automatic for the schedule that it means with this sampler, as A1111 reads infotexts, and where none is read."""
    traits = SAMPLER_BY_NAME[sampler]
    return AUTOMATIC if schedule == traits.own_schedule or not traits.has_schedule else schedule


def named_schedule(sampler: SamplerName, schedule: ScheduleName) -> ScheduleName:
    """The schedule as A1111 writes it into infotexts: what Automatic means with this sampler."""
    return SAMPLER_BY_NAME[sampler].own_schedule if schedule == AUTOMATIC else schedule
