"""Golden noise: `ATEN_CPU_CAPABILITY=default python -m tools.golden_stable_diffusion.noise --webui PATH`.

PATH is a checkout of AUTOMATIC1111/stable-diffusion-webui 1.10.1. Needs the packages of this folder's README. By that
variable PyTorch calls the system's mathematical library instead of its own vectorised approximations.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from tools.golden_stable_diffusion import webui
from tools.golden_stable_diffusion.samplers import FOLDER, check_capability

COUNTS = (16, 3, 17, 15, 1, 100, 4, 64)
SEEDS = (0, 5, 2**32 + 5, 1234567890, 2**64 - 1)
SIGMAS = (14.614642, 9.25, 7.123456, 3.3, 1.2, 0.6, 0.3, 0.1, 0.0291675)


def image_cases() -> list[dict]:
    """Arguments of `ImageNoise`."""
    shape, seed = (4, 6, 5), 987654321
    cases = [{"shape": shape, "seed": seed}, {"shape": shape, "seed": 2**32 + 1, "eta_noise_seed_delta": 31337}]
    cases += [
        {"shape": shape, "seed": seed, "subseed": subseed, "subseed_strength": strength}
        for subseed, strength in ((1, 0.25), (2, 0.9), (3, 1.0), (seed, 0.3))
    ]
    cases += [
        {"shape": shape, "seed": seed, "seed_resize": size}
        for size in ((3, 3), (4, 8), (9, 9), (2, 6), (8, 7), (5, 9), (6, 2))
    ]
    everything = {"subseed": 7, "subseed_strength": 0.4, "seed_resize": (6, 7), "eta_noise_seed_delta": 5}
    cases.append({"shape": shape, "seed": seed, **everything})
    return [{"source": source, **case} for source in ("CPU", "NV") for case in cases]


def image_noise(case: dict, module) -> np.ndarray:
    """The first noise and the two after it."""
    width, height = case.get("seed_resize", (0, 0))
    subseed = case.get("subseed")
    with webui.settings(randn_source=case["source"], eta_noise_seed_delta=case.get("eta_noise_seed_delta", 0)):
        rng = module.rng.ImageRNG(
            case["shape"],
            [case["seed"]],
            subseeds=None if subseed is None else [subseed],
            subseed_strength=case.get("subseed_strength", 0.0),
            seed_resize_from_h=8 * height,
            seed_resize_from_w=8 * width,
        )
        return torch.cat([rng.next() for _ in range(3)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webui", type=Path, required=True)
    check_capability()
    module = webui.load(parser.parse_args().webui)
    arrays, cases = {}, image_cases()
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        arrays[f"cpu {seed}"] = torch.cat([torch.randn(count, generator=generator) for count in COUNTS]).numpy()
    for index, case in enumerate(cases):
        arrays[f"image {index}"] = image_noise(case, module)
    for source, seed in itertools.product(("CPU", "NV"), (3, 2**33 + 1)):
        with webui.settings(randn_source=source):
            levels = torch.tensor(SIGMAS)
            sampler = webui.sampling.BrownianTreeNoiseSampler(
                torch.zeros(1, 4, 3, 5), levels[-1], levels[0], seed=[seed]
            )
            pairs = [*itertools.pairwise(levels), (levels[1], levels[4]), (levels[6], levels[2])]
            arrays[f"brownian {source} {seed}"] = torch.cat([sampler(*pair) for pair in pairs]).numpy()
    np.savez_compressed(FOLDER / "noise.npz", **arrays)
    facts = {"counts": COUNTS, "seeds": SEEDS, "sigmas": SIGMAS}
    lines = [f'"{name}": {json.dumps(value)}' for name, value in facts.items()]
    lines.append('"images": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    (FOLDER / "noise.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
