"""Rows of Stable Diffusion models, files of a library, and random samplings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from engine.catalog import ModelSpec
from engine.protocol import Emphasis, Generate, SamplerName, ScheduleName
from gateway.errors import ModelNotFound
from gateway.jobs.adjustments import Adjustment, Leniency
from gateway.jobs.resolve import GenerationRequest, Limits, Resolution, resolve
from gateway.jobs.sampling_files import Embeddings, FileHashes, ListedEmbedding, SamplingFiles
from gateway.jobs.sampling_request import SamplingRequest
from gateway.service.sampling_files import files_of


def a_row(name: str = "dreams", **more: Any) -> ModelSpec:
    """The row of a Stable Diffusion 1 checkpoint."""
    row: dict[str, Any] = {
        "name": name,
        "family": "sd1",
        "geometry": "sd1",
        "licence": "as its author says",
        "description": "A checkpoint",
        "size_gb": 2.1,
        "distilled": False,
        "default_steps": 20,
        "useful_max_steps": 100,
        "default_guidance": 7.0,
        "default_px": 512,
        "step_px": 8,
        "negative_prompt": True,
        "prediction": "epsilon",
    }
    return ModelSpec(**{**row, **more})


SD1 = a_row()
SD2 = a_row("depths", family="sd2", geometry="sd2", prediction="v_prediction")
SDXL = a_row("large", family="sdxl", geometry="sdxl", default_px=1024)
REFINER = a_row("refiner", family="sdxl_refiner", geometry="sdxl_refiner", default_px=1024)
TURBO = a_row("turbo", family="sdxl", geometry="sdxl", distilled=True, useful_max_steps=4, default_guidance=1.0)


@dataclass(frozen=True)
class Shelf:
    """A library of Stable Diffusion's files, in memory."""

    rows: Sequence[ModelSpec] = (SD1, SD2, SDXL, REFINER, TURBO)
    vae_names: Sequence[str] = ()
    embedding_names: Sequence[str] = ()
    sha256s: dict[str, str] = field(default_factory=dict)

    def checkpoint(self, title: str) -> ModelSpec | None:
        digits = {row.name: self.sha256s.get(row.name, "") for row in self.rows}
        name = title.partition(" [")[0].removesuffix(".safetensors")
        return next(
            (row for row in self.rows if row.name == name or (digits[row.name] and digits[row.name][:10] == title)),
            None,
        )

    def title(self, spec: ModelSpec) -> str:
        sha256 = self.sha256s.get(spec.name)
        return f"{spec.name}.safetensors" + (f" [{sha256[:10]}]" if sha256 else "")

    def sha256(self, spec: ModelSpec) -> str | None:
        return self.sha256s.get(spec.name)

    def vaes(self) -> Sequence[str]:
        return self.vae_names

    def vae(self, name: str) -> str | None:
        return next((one for one in self.vae_names if name in (one, one.removesuffix(".safetensors"))), None)

    def vae_beside(self, spec: ModelSpec) -> str | None:
        return next((one for one in self.vae_names if one.startswith(spec.name)), None)

    def embeddings(self, spec: ModelSpec) -> Embeddings:
        return Embeddings(loaded=tuple(ListedEmbedding(name, 2, 768) for name in self.embedding_names))

    def hashes(self, plan: Generate) -> FileHashes:
        sampling = plan.sampling
        assert sampling is not None
        return FileHashes(
            model=self.sha256s.get(plan.model, "")[:10] or None,
            vae=None if sampling.vae is None else "00ff00ff00",
            embeddings=dict.fromkeys(sampling.embeddings, "123456789abc"),
        )


@dataclass(frozen=True)
class Models:
    """A library of models by name; `here` are those on disk."""

    specs: Sequence[ModelSpec]
    here: Sequence[ModelSpec]
    aliases: dict[str, str] = field(default_factory=dict)
    files: Shelf = Shelf()

    def find(self, name: str) -> ModelSpec:
        found = next((spec for spec in self.specs if spec.name == self.aliases.get(name, name)), None)
        if found is None:
            raise ModelNotFound
        return found

    def draws(self, spec: ModelSpec) -> bool:
        return spec in self.here


def resolved(
    sampling: SamplingRequest | None = None,
    spec: ModelSpec = SD1,
    *,
    leniency: Leniency = "refuse",
    library: Shelf | None = None,
    files: SamplingFiles | None = None,
    **request: Any,
) -> Resolution:
    """The plan of a request with this sampling."""
    asked = GenerationRequest(**{"prompt": "a cat", "seed": 7, "sampling": sampling, **request})
    if files is None:
        files = files_of(asked, spec, library or Shelf())
    return resolve(asked, spec, Limits(), random_seed=lambda: 7, leniency=leniency, files=files)


def reasons(adjustments: Sequence[Adjustment]) -> dict[str, str]:
    return {one.param: one.reason for one in adjustments}


def a_sampling_request(dice: random.Random, *, predicts_v: bool = True) -> SamplingRequest:
    """A request whose every value Stable Diffusion can honour; about half of them are not set."""
    names = (*get_args(SamplerName), *(f"{name} Karras" for name in ("DPM++ 2M", "LMS", "Heun")))
    values: dict[str, Any] = {
        "sampler": dice.choice(names),
        "schedule": dice.choice(get_args(ScheduleName)),
        "eta": dice.randint(0, 10) / 10,
        "s_churn": dice.randint(0, 1000) / 10,
        "s_tmin": dice.randint(0, 100) / 10,
        "s_tmax": dice.randint(0, 9990) / 10,
        "s_noise": dice.randint(0, 110) / 100,
        "sigma_min": dice.randint(1, 30) / 10,
        "sigma_max": dice.randint(50, 200) / 10,
        "rho": dice.choice((0.0, 1.0, 5.5, 7.0)),
        "discard_penultimate_sigma": dice.random() < 0.5,
        "random_source": dice.choice(("CPU", "NV")),
        "eta_noise_seed_delta": dice.choice((0, 31337, 2**40)),
        "seed_resize_width": 8 * dice.randint(1, 64),
        "seed_resize_height": 8 * dice.randint(1, 64),
        "clip_skip": dice.randint(1, 12),
        "emphasis": dice.choice(get_args(Emphasis)),
        "comma_padding_backtrack": dice.randint(0, 74),
        "s_min_uncond": dice.randint(0, 150) / 10,
        "skip_early_cond": dice.randint(0, 10) / 10,
        "pad_cond_uncond": dice.random() < 0.5,
        "zero_terminal_snr": predicts_v and dice.random() < 0.5,
        "downcast_alphas_cumprod": dice.random() < 0.5,
        "old_prompt_editing": dice.random() < 0.5,
        "sgm_noise_multiplier": dice.random() < 0.5,
        "initial_noise_multiplier": dice.randint(0, 150) / 100,
        "img2img_extra_noise": dice.randint(0, 100) / 100,
        "img2img_fix_steps": dice.random() < 0.5,
    }
    return SamplingRequest(**{name: value for name, value in values.items() if dice.random() < 0.5})
