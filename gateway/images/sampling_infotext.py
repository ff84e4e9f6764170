"""A1111's infotext of an image of Stable Diffusion: its pairs of a plan, and the sampling that its pairs ask for. Pure.

Source: A1111 1.10.1 modules/processing.py create_infotext, sd_samplers_common.py, infotext_utils.py,
infotext_versions.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from engine.protocol import Enlargement, Generate, Sampling
from gateway.images import infotext
from gateway.jobs.resolve_sampling import RANGES
from gateway.jobs.samplers import SAMPLER_BY_NAME, match, named_schedule
from gateway.jobs.sampling_files import FileHashes
from gateway.jobs.sampling_request import SamplingRequest

UPSCALERS: Mapping[Enlargement, str] = {
    "lanczos": "Lanczos",
    "nearest": "Nearest",
    "latent": "Latent",
    "latent-antialiased": "Latent (antialiased)",
    "latent-bicubic": "Latent (bicubic)",
    "latent-bicubic-antialiased": "Latent (bicubic antialiased)",
    "latent-nearest": "Latent (nearest)",
    "latent-nearest-exact": "Latent (nearest-exact)",
}
"""A1111's names of upscalers of hires fix."""
ZERO_TERMINAL_SNR = "Zero Terminal SNR"
FLAGS: Mapping[str, str] = {
    "Downcast alphas_cumprod": "downcast_alphas_cumprod",
    "Discard penultimate sigma": "discard_penultimate_sigma",
    "SGM noise multiplier": "sgm_noise_multiplier",
    "Pad conds": "pad_cond_uncond",
    "Old prompt editing timelines": "old_prompt_editing",
    "Exact img2img steps": "img2img_fix_steps",
}
"""Fields of a `Sampling` that are True where their key is there; the last one is ours."""
NUMBERS: Mapping[str, str] = {
    "Clip skip": "clip_skip",
    "ENSD": "eta_noise_seed_delta",
    "Sigma churn": "s_churn",
    "Sigma tmin": "s_tmin",
    "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
    "Schedule min sigma": "sigma_min",
    "Schedule max sigma": "sigma_max",
    "Schedule rho": "rho",
    "NGMS": "s_min_uncond",
    "Skip Early CFG": "skip_early_cond",
    "Noise multiplier": "initial_noise_multiplier",
    "Extra noise": "img2img_extra_noise",
    "Prompt word wrap": "comma_padding_backtrack",
}
"""Numbers of a `Sampling`, written where they are not the default; the last key is ours."""
NOT_HAD: Mapping[str, str] = {
    "Beta schedule alpha": "0.6",
    "Beta schedule beta": "0.6",
    "Conditional mask weight": "1.0",
    "FP8 weight": "Disable",
    "Hires checkpoint": "Use same checkpoint",
    "Hires refiner": "second pass",
    "Hypernet": "None",
    "NGMS all steps": "False",
    "Pad conds v0": "False",
    "Refiner switch by sampling steps": "False",
    "Tiling": "False",
    "Token merging ratio": "0",
    "Token merging ratio hr": "0",
    "UniPC lower order final": "True",
    "UniPC order": "3",
    "UniPC skip type": "time_uniform",
    "UniPC variant": "bh1",
    "VAE Decoder": "Full",
    "VAE Encoder": "Full",
}
"""What an infotext may ask for and cannot be had here, with the values that are."""
WHOLE = frozenset({"clip_skip", "eta_noise_seed_delta", "comma_padding_backtrack"})
_VERSION = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?:-([0-9]{1,6}))?")
_NUMBER = re.compile(r"[-+]?[0-9]{1,20}(?:\.[0-9]{0,20})?(?:[eE][-+]?[0-9]{1,3})?")
Version = tuple[int, int, int, int]
EDITING_CHANGED: Version = (1, 6, 0, 0)
"""Before it, `[from:to:when]` counted otherwise, and DDIM and PLMS padded the shorter prompt."""
DOWNCAST_ENDED: Version = (1, 7, 0, 225)
"""Before it, A1111 computed the noise table in float16."""
REFINER_CHANGED: Version = (1, 8, 0, 0)
"""Before it, a refiner took over by steps, not by timesteps."""


def plain(value: float | None) -> float | int | None:
    """A whole number without its decimal point."""
    return int(value) if value is not None and value == int(value) else value


def pairs_of(
    plan: Generate, image: int, hashes: FileHashes, further: Mapping[str, object] | None = None
) -> dict[str, object]:
    """All pairs of image number `image` of a plan of Stable Diffusion, in A1111's order; None: left out.

    `further` pairs come before those of the version, and replace those of the same key.
    """
    sampling = plan.sampling
    assert sampling is not None
    second = plan.second_pass
    varied = plan.subseed_strength > 0
    begins = plan.init_image is not None
    pairs: dict[str, object] = {
        "Steps": plan.steps,
        "Sampler": sampling.sampler,
        "Schedule type": named_schedule(sampling.sampler, sampling.schedule),
        "CFG scale": plain(plan.guidance),
        "Seed": plan.seeds[image],
        "Size": f"{plan.width_px}x{plan.height_px}",
        "Model hash": hashes.model,
        "Model": plan.model,
        "VAE hash": hashes.vae if sampling.vae else None,
        "VAE": sampling.vae,
        "Variation seed": plan.subseeds[image] if varied else None,
        "Variation seed strength": plain(plan.subseed_strength) if varied else None,
        "Seed resize from": None if sampling.seed_resize_px is None else "{}x{}".format(*sampling.seed_resize_px),
        "Denoising strength": plain(second.denoise if second else plan.denoise) if second or begins else None,
        "Clip skip": None if sampling.clip_skip == 1 else sampling.clip_skip,
        "ENSD": sampling.eta_noise_seed_delta or None,
        "RNG": sampling.random_source,
        **extra_pairs(plan, hashes),
        **(further or {}),
        "Version": infotext.VERSION,
    }
    return pairs


def extra_pairs(plan: Generate, hashes: FileHashes) -> dict[str, object]:
    """The pairs that A1111 calls extra: those of the second pass, of values that are not the default, of files."""
    sampling = plan.sampling
    assert sampling is not None
    embeddings = {name: text for name, text in hashes.embeddings.items() if name in sampling.embeddings}
    pairs = {
        **dict(_second_pass(plan)),
        **dict(_values(sampling)),
        "Lora hashes": _listed(hashes.loras),
        "TI hashes": _listed(embeddings),
    }
    return {key: value for key, value in pairs.items() if value is not None}


def _second_pass(plan: Generate) -> Iterator[tuple[str, object]]:
    second, sampling = plan.second_pass, plan.sampling
    if second is None or sampling is None:
        return
    sampler = second.sampler or sampling.sampler
    first = named_schedule(sampling.sampler, sampling.schedule)
    schedule = named_schedule(sampler, second.schedule or sampling.schedule)
    yield "Hires resize", f"{second.width_px}x{second.height_px}"
    yield "Hires steps", None if second.steps == plan.steps else second.steps
    yield "Hires upscaler", UPSCALERS[second.enlarge]
    yield "Hires CFG Scale", plain(second.guidance)
    yield "Hires sampler", second.sampler
    yield "Hires schedule type", None if schedule == first else schedule
    yield "Hires prompt", second.prompt
    yield "Hires negative prompt", second.negative_prompt


def _values(sampling: Sampling) -> Iterator[tuple[str, object]]:
    """What differs from the default: A1111 writes the other values nowhere."""
    defaults = Sampling()
    if sampling.zero_terminal_snr:
        yield "Noise Schedule", ZERO_TERMINAL_SNR
    if sampling.eta is not None:
        yield SAMPLER_BY_NAME[sampling.sampler].eta_key, plain(sampling.eta)
    for key, name in NUMBERS.items():
        value = getattr(sampling, name)
        if name not in ("clip_skip", "eta_noise_seed_delta") and value != getattr(defaults, name):
            yield key, plain(value)
    for key, name in FLAGS.items():
        if getattr(sampling, name):
            yield key, True
    if sampling.emphasis != defaults.emphasis:
        yield "Emphasis", sampling.emphasis
    if sampling.refiner is not None:
        yield "Refiner", sampling.refiner.model
        yield "Refiner switch at", plain(sampling.refiner.switch_at)


_NO_SEPARATORS = str.maketrans("", "", ":,")


def _listed(hashes: Mapping[str, str]) -> str | None:
    return ", ".join(f"{name.translate(_NO_SEPARATORS)}: {text}" for name, text in hashes.items()) or None


@dataclass(frozen=True, slots=True)
class SamplingRead:
    """What an infotext says of its image's sampling."""

    sampling: SamplingRequest
    """Every value, also those that an infotext leaves out at their default; but no eta that it leaves out."""
    invalid: Mapping[str, str] = field(default_factory=dict)
    """Pairs that are not used."""


def is_ours(pairs: Mapping[str, str]) -> bool:
    """Whether this gateway wrote an infotext."""
    return pairs.get("Version", "").startswith(infotext.VERSION.partition(" ")[0])


def read(pairs: Mapping[str, str]) -> SamplingRead:
    """The sampling of an infotext's pairs.

    An image without `RNG` is mostly one of NVIDIA's cards, whose noise the source NV has. Of an old version of A1111,
    values are as they were then.
    """
    invalid: dict[str, str] = {}
    pairs = {**pairs, **{key: str(value) for key, value in of_version(pairs).items()}}
    found = match(pairs.get("Sampler", ""), pairs.get("Schedule type"))
    traits = None if found.sampler is None else SAMPLER_BY_NAME[found.sampler]
    eta_key = "Eta" if traits is None else traits.eta_key
    values: dict[str, Any] = {name: getattr(Sampling(), name) or 0 for name in NUMBERS.values()}
    for key, name in {**NUMBERS, eta_key: "eta", "Refiner switch at": "refiner_switch_at"}.items():
        if key in pairs:
            if (number := _number(pairs[key], name)) is None:
                invalid[key] = pairs[key]
            else:
                values[name] = number
    for side, name in (("1", "seed_resize_width"), ("2", "seed_resize_height")):
        values[name] = _number(pairs.get(f"Seed resize from-{side}", ""), name) or 0
    values |= {name: pairs.get(key, "").lower() == "true" for key, name in FLAGS.items()}
    invalid |= {key: pairs[key] for key, had in NOT_HAD.items() if pairs.get(key, had) != had}
    return SamplingRead(
        SamplingRequest(
            sampler=pairs.get("Sampler"),
            schedule=pairs.get("Schedule type", "Automatic"),
            random_source=pairs.get("RNG", "GPU").replace("GPU", "NV"),
            emphasis=pairs.get("Emphasis", Sampling().emphasis),
            zero_terminal_snr=pairs.get("Noise Schedule") == ZERO_TERMINAL_SNR,
            vae=pairs.get("VAE", "None" if is_ours(pairs) else None),
            refiner=pairs.get("Refiner"),
            **values,
        ),
        invalid,
    )


def request_in(pairs: Mapping[str, str]) -> SamplingRequest | None:
    """The sampling of an infotext without what is the default anyway; None for other models than Stable Diffusion.

    Infotexts of FLUX by Forge have a distilled guidance, and those of this gateway no `RNG`.
    """
    if "Sampler" not in pairs or "Distilled CFG Scale" in pairs or (is_ours(pairs) and "RNG" not in pairs):
        return None
    found = read(pairs).sampling
    defaults = {**Sampling().model_dump(), "s_tmax": 0, "sigma_min": 0, "sigma_max": 0, "rho": 0}
    defaults |= {"seed_resize_width": 0, "seed_resize_height": 0}
    named = ("sampler", "schedule", "random_source", "vae")
    values: dict[str, Any] = found.said()
    matched = match(pairs["Sampler"], values["schedule"])
    values |= {"sampler": matched.sampler, "schedule": matched.schedule}
    return SamplingRequest(**{name: one for name, one in values.items() if name in named or one != defaults.get(name)})


def of_version(pairs: Mapping[str, str]) -> dict[str, bool]:
    """Pairs that an old version of A1111 did not write, because there was no choice then.

    Source: A1111 1.10.1 modules/infotext_versions.py backcompat.
    """
    version = version_of(pairs.get("Version", ""))
    if version is None:
        return {}
    is_there = {
        "Old prompt editing timelines": version < EDITING_CHANGED and "[" in pairs.get("Prompt", ""),
        "Pad conds v0": version < EDITING_CHANGED and pairs.get("Sampler") in ("DDIM", "PLMS"),
        "Downcast alphas_cumprod": version < DOWNCAST_ENDED,
        "Refiner switch by sampling steps": version < REFINER_CHANGED and bool(pairs.get("Refiner")),
    }
    return {key: True for key, value in is_there.items() if value}


def version_of(text: str) -> Version | None:
    """A1111's version, with the number of commits after it; None for another program's."""
    found = _VERSION.match(text)
    if found is None or text[found.end() : found.end() + 1] not in ("", "-"):
        return None
    return int(found[1]), int(found[2]), int(found[3]), int(found[4] or 0)


def _number(text: str, name: str) -> float | int | None:
    """A number within the range of its field; None for anything else."""
    if _NUMBER.fullmatch(text.strip()) is None or not isfinite(number := float(text)):
        return None
    least, most = RANGES[name]
    if not least <= number <= most:
        return None
    whole = name in WHOLE or name.startswith("seed_resize")
    return int(text) if whole and text.strip().lstrip("+-").isdecimal() else None if whole else number
