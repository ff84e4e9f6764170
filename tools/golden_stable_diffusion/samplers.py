"""Golden latents of all samplers, and golden noise levels.

`ATEN_CPU_CAPABILITY=default python -m tools.golden_stable_diffusion.samplers --webui PATH`, where PATH is a checkout of
AUTOMATIC1111/stable-diffusion-webui 1.10.1. Its own samplers run on a network that is one formula (`predict`), which
tests/engine/stable_diffusion repeats with MLX. Needs the packages of this folder's README.
"""

import argparse
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from tools.golden_stable_diffusion import webui

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "stable_diffusion"
SHAPE = (4, 4, 5)
SEED = 4294967291
ALL = [
    *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler"),
    *("LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC"),
    "LCM",
]
SCHEDULES = [
    *("Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal", "Align Your Steps", "Simple"),
    *("Normal", "DDIM", "Beta"),
]
OPTIONS = {
    "discard_penultimate_sigma": "always_discard_next_to_last_sigma",
    "sigma_min": "sigma_min",
    "sigma_max": "sigma_max",
    "rho": "rho",
    "sgm_noise_multiplier": "sgm_noise_multiplier",
    "img2img_extra_noise": "img2img_extra_noise",
    "img2img_fix_steps": "img2img_fix_steps",
    "random_source": "randn_source",
    "eta_noise_seed_delta": "eta_noise_seed_delta",
    "downcast_alphas_cumprod": "use_downcasted_alpha_bar",
}
"""Our names of settings, and A1111's."""


def predict(x, timestep, is_conditional):
    """The network: smooth in the latents and in the timestep."""
    time = timestep / 1000.0
    if is_conditional:
        return x * (0.3 + 0.65 * time) + 0.2 * torch.sin(2.0 * x)
    return x * (0.35 + 0.6 * time) - 0.1 * torch.cos(x)


def sampler_cases() -> list[dict]:
    """What is sampled: a plan's `sampling`, and the arguments of a pass."""
    cases = [{"sampling": {"sampler": name}, "steps": steps} for name in ALL for steps in (7, 20)]
    cases += [{"sampling": {"sampler": name}, "steps": 12, "denoise": 0.6} for name in ALL]
    cases += [{"sampling": {"sampler": name}, "steps": 6, "denoise": 0.7, "second_pass": True} for name in ALL]
    for name in ("Euler", "Heun", "DPM2"):
        churn = {"sampler": name, "s_churn": 8.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.03}
        cases.append({"sampling": churn, "steps": 9})
    for name in ("DPM++ SDE", "DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ 2S a", "Euler a", "DPM2 a", "DPM fast"):
        cases.append({"sampling": {"sampler": name, "eta": 0.6, "s_noise": 1.04}, "steps": 9})
        cases.append({"sampling": {"sampler": name, "eta": 0.0}, "steps": 9})
    for name in ("DDIM", "DDIM CFG++", "DPM adaptive"):
        cases.append({"sampling": {"sampler": name, "eta": 0.5}, "steps": 10})
    cases += [{"sampling": {"sampler": name}, "steps": 30} for name in ("DDIM", "PLMS", "UniPC", "Restart", "LCM")]
    cases += [{"sampling": {"sampler": "Restart"}, "steps": 40}, {"sampling": {"sampler": "DPM fast"}, "steps": 9}]
    cases += [{"sampling": {"sampler": "DPM fast"}, "steps": 10}, {"sampling": {"sampler": "Euler"}, "steps": 1}]
    for name in ("Euler a", "DPM++ 2M", "DPM++ SDE", "DDIM", "Heun"):
        cases.append({"sampling": {"sampler": name, "zero_terminal_snr": True}, "steps": 8, "prediction": "v"})
        cases.append({"sampling": {"sampler": name, "downcast_alphas_cumprod": True}, "steps": 8})
        extra = {"sampler": name, "img2img_extra_noise": 0.2, "initial_noise_multiplier": 0.9}
        cases.append({"sampling": extra, "steps": 10, "denoise": 0.5})
        cases.append({"sampling": {"sampler": name, "discard_penultimate_sigma": True}, "steps": 8})
        cases.append({"sampling": {"sampler": name, "eta_noise_seed_delta": 31337, "random_source": "NV"}, "steps": 8})
        cases.append({"sampling": {"sampler": name, "img2img_fix_steps": True}, "steps": 5, "denoise": 0.4})
    for name in ("Euler a", "DPM++ SDE", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"):
        cases.append({"sampling": {"sampler": name}, "steps": 8, "denoise": 0.9, "is_masked": True})
    cases.append({"sampling": {"sampler": "Euler", "sgm_noise_multiplier": True}, "steps": 6})
    cases += [{"sampling": {"sampler": "DPM++ 2M", "schedule": name}, "steps": 6} for name in SCHEDULES]
    cases += [{"sampling": {"sampler": "Euler a", "schedule": name}, "steps": 6, "denoise": 0.5} for name in SCHEDULES]
    return cases


def schedule_cases() -> list[dict]:
    """Whose noise levels are kept."""
    cases = [
        {"sampling": {"schedule": name}, "steps": steps, "is_sdxl": is_sdxl}
        for name in SCHEDULES
        for steps, is_sdxl in ((1, False), (4, False), (11, True), (20, True), (33, False))
    ]
    ends = {"sigma_min": 0.1, "sigma_max": 10.0, "rho": 5.0}
    cases += [{"sampling": {"schedule": name, **ends}, "steps": 9} for name in SCHEDULES]
    cases += [{"sampling": {"schedule": name, "zero_terminal_snr": True}, "steps": 9} for name in SCHEDULES]
    cases += [{"sampling": {"schedule": name, "downcast_alphas_cumprod": True}, "steps": 9} for name in SCHEDULES]
    cases += [{"sampling": {"sampler": "LCM", "schedule": name}, "steps": 6} for name in SCHEDULES]
    cases += [{"sampling": {"sampler": name}, "steps": 13} for name in ALL if name not in ALL[15:19]]
    return cases


def processing(case: dict, module) -> SimpleNamespace:
    """A1111's description of a pass."""
    sampling = case["sampling"]
    kept = (torch.arange(np.prod(SHAPE)).reshape(SHAPE) % 3 == 0).float() if case.get("is_masked") else None
    return SimpleNamespace(
        mask=kept,
        nmask=None if kept is None else 1.0 - kept,
        sampler_name=sampling.get("sampler", "Euler"),
        scheduler=sampling.get("schedule", "Automatic"),
        hr_scheduler=sampling.get("schedule", "Automatic"),
        steps=case["steps"],
        denoising_strength=case.get("denoise"),
        is_hr_pass=case.get("second_pass", False),
        cfg_scale=webui.GUIDANCE,
        eta=sampling.get("eta"),
        s_min_uncond=0.0,
        s_churn=sampling.get("s_churn", 0.0),
        s_tmin=sampling.get("s_tmin", 0.0),
        s_tmax=sampling.get("s_tmax") or float("inf"),
        s_noise=sampling.get("s_noise", 1.0),
        sampler_noise_scheduler_override=None,
        extra_generation_params={},
        all_seeds=[SEED],
        iteration=0,
        batch_size=1,
        rng=module.rng.ImageRNG(SHAPE, [SEED]),
    )


def model_of(case: dict, module) -> webui.ToyModel:
    """The toy model with the noise levels of a case, as the loaded one."""
    model = webui.ToyModel(predict, case.get("prediction", "eps"), is_sdxl=case.get("is_sdxl", False))
    webui.shared.sd_model = model
    module.levels.apply_alpha_schedule_override(model)
    return model


def settings_of(case: dict):
    """A1111's settings of a case."""
    changed = {theirs: case["sampling"][ours] for ours, theirs in OPTIONS.items() if ours in case["sampling"]}
    if case["sampling"].get("zero_terminal_snr"):
        changed["sd_noise_schedule"] = "Zero Terminal SNR"
    return webui.settings(**changed)


def sample(case: dict, module) -> tuple[np.ndarray, int]:
    """Latents that A1111 makes, and the number of evaluations."""
    with settings_of(case):
        model = model_of(case, module)
        p = processing(case, module)
        sampler = module.samplers.create_sampler(p.sampler_name, model)
        noise = p.rng.next()
        if case.get("denoise") is None:
            latents = sampler.sample(p, noise, webui.GUIDANCE, None)
        else:
            steps = p.steps if p.is_hr_pass else None
            if not p.is_hr_pass:
                noise = noise * case["sampling"].get("initial_noise_multiplier", 1.0)
            latents = sampler.sample_img2img(p, init_latents(), noise, webui.GUIDANCE, None, steps=steps)
    return latents[0].numpy(), model.calls


def init_latents() -> torch.Tensor:
    """Latents of the input image: one formula."""
    return torch.sin(torch.arange(float(np.prod(SHAPE)))).reshape(1, *SHAPE)


def schedule(case: dict, module) -> np.ndarray:
    """Noise levels that A1111 computes."""
    with settings_of(case):
        model = model_of(case, module)
        p = processing(case, module)
        return module.samplers.create_sampler(p.sampler_name, model).get_sigmas(p, p.steps).numpy()


def tables(module) -> dict[str, np.ndarray]:
    """Tables of noise levels, and some timesteps and levels between them."""
    found = {}
    for name in ("ordinary", "zero_terminal_snr", "downcast_alphas_cumprod"):
        with settings_of({"sampling": {name: True}}):
            model = model_of({}, module)
            wrapped = webui.external.CompVisDenoiser(model)
            found[f"{name} sigmas"] = wrapped.sigmas[::37].float().numpy()
            levels = torch.tensor([0.02, 0.03, 0.1, 0.77, 1.0, 3.3, 14.0, 15.0])
            found[f"{name} timesteps"] = torch.stack([wrapped.sigma_to_t(level[None])[0] for level in levels]).numpy()
    return found


def check_capability() -> None:
    """Raises: SystemExit where PyTorch would approximate logarithms and angles."""
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        raise SystemExit("set ATEN_CPU_CAPABILITY=default")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webui", type=Path, required=True)
    check_capability()
    warnings.simplefilter("ignore")
    module = webui.load(parser.parse_args().webui)
    samples, schedules = sampler_cases(), schedule_cases()
    arrays = {}
    for index, case in enumerate(samples):
        arrays[f"latents {index}"], case["calls"] = sample(case, module)
    for index, case in enumerate(schedules):
        arrays[f"sigmas {index}"] = schedule(case, module)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FOLDER / "samplers.npz", **arrays, **tables(module))
    cases = {"samplers": samples, "schedules": schedules}
    lines = {name: [json.dumps(case) for case in listed] for name, listed in cases.items()}
    body = ",\n".join(f'"{name}": [\n' + ",\n".join(listed) + "\n]" for name, listed in lines.items())
    (FOLDER / "samplers.json").write_text("{\n" + body + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
