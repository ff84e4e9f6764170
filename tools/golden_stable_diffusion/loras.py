"""Golden weights of layers with LoRAs, merged by A1111's own code.

`python -m tools.golden_stable_diffusion.loras --webui PATH`, where PATH is a checkout of
AUTOMATIC1111/stable-diffusion-webui 1.10.1. Files and layers are those of tests/support/lora_kernels.py.
"""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from tests.support.lora_kernels import GOLDEN_LAYERS, GOLDEN_SCALE, golden_case, golden_cases

FILE = Path(__file__).parents[2] / "tests" / "golden" / "stable_diffusion" / "loras.npz"
KINDS = {
    "network_lora": "ModuleTypeLora",
    "network_hada": "ModuleTypeHada",
    "network_ia3": "ModuleTypeIa3",
    "network_lokr": "ModuleTypeLokr",
    "network_full": "ModuleTypeFull",
}
"""A1111's modules, in its order, and the class of each that recognises a layer's tensors."""


def load(webui: Path) -> tuple[ModuleType, list]:
    """Its module `network`, and its kinds of networks. What they import of A1111's window is left empty."""
    sys.path.insert(0, str(webui / "extensions-builtin" / "Lora"))
    for name in ("modules", "modules.models", "modules.models.sd3"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = []
    for name in ("sd_models", "cache", "errors", "hashes", "shared", "devices", "models.sd3.mmdit"):
        module = sys.modules[f"modules.{name}"] = ModuleType(f"modules.{name}")
        if "." not in name:
            setattr(sys.modules["modules"], name, module)
    devices = sys.modules["modules.devices"]
    devices.cpu, devices.dtype = torch.device("cpu"), torch.float64
    sys.modules["modules.models.sd3.mmdit"].QkvLinear = type("QkvLinear", (torch.nn.Linear,), {})
    modules = sys.modules["modules"]
    modules.models = sys.modules["modules.models"]
    modules.models.sd3 = sys.modules["modules.models.sd3"]
    modules.models.sd3.mmdit = sys.modules["modules.models.sd3.mmdit"]
    return importlib.import_module("network"), [
        getattr(importlib.import_module(module), kind)() for module, kind in KINDS.items()
    ]


def layer_of(base: np.ndarray) -> torch.nn.Module:
    outputs, inputs, *kernel = base.shape
    layer = torch.nn.Conv2d(inputs, outputs, kernel[0], padding=kernel[0] // 2) if kernel else None
    layer = torch.nn.Linear(inputs, outputs) if layer is None else layer
    layer.weight.data = torch.tensor(base)
    return layer.double()


def merged(network: ModuleType, kinds: list, layer: str, style: str) -> np.ndarray:
    """The weight with the change at a scale, as A1111 adds them up."""
    base, made = golden_case(layer, style)
    module, tensors = layer_of(base), {name: torch.tensor(value) for name, value in made.tensors.items()}
    net = network.Network("golden", None)
    net.unet_multiplier = GOLDEN_SCALE
    weights = network.NetworkWeights("golden", "diffusion_model_golden", tensors, module)
    change = next(found for kind in kinds if (found := kind.create_module(net, weights)) is not None)
    with torch.no_grad():
        delta, _ = change.calc_updown(module.weight)
    return base + delta.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webui", type=Path, required=True)
    network, kinds = load(parser.parse_args().webui)
    found = {
        f"{layer}/{style}": merged(network, kinds, layer, style).astype(np.float32) for layer, style in golden_cases()
    }
    np.savez_compressed(FILE, **found)
    print(f"{len(found)} weights of {len(GOLDEN_LAYERS)} layers, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
