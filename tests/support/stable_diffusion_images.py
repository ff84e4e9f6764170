"""Whole images that PyTorch draws for the tests: their plans, their input images and their LoRA. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from tests.support.stable_diffusion_tensors import NARROW_VAE, TOY_SIZES, Family, ToySizes, toy_values

SIDE_PX = 24
GUIDANCE = 7.0
PROMPT, WEIGHTED, NEGATIVE = "a red circle", "a (red:1.4) circle", "blue square"
TOKENS = {"a": 320, "red": 736, "circle": 7117, "blue": 1746, "square": 3999}
"""CLIP's tokens of the words of these prompts."""
REFINER = "refiner"
LORA = "lora"
LORA_RANK, LORA_ALPHA = 4, 2.0

Content = Literal["original", "noise", "nothing"]


@dataclass(frozen=True)
class ToyModel:
    """A toy checkpoint, with the arguments of `toy_checkpoint`."""

    family: Family
    form: Literal["file", "folder"] = "file"
    inpainting: bool = False
    v: bool = False
    seed: int = 0
    vae_groups: int = 32

    @property
    def sizes(self) -> ToySizes:
        return replace(TOY_SIZES[self.family], vae_channels=NARROW_VAE, vae_groups=self.vae_groups)


MODELS = {
    "sd1": ToyModel("sd1"),
    # A grey image has groups without variance where each is one channel: then only roundings would be seen.
    "inpainting": ToyModel("sd1", form="folder", inpainting=True, vae_groups=8),
    "sd2 v": ToyModel("sd2", form="folder", v=True),
    "sdxl": ToyModel("sdxl"),
    REFINER: ToyModel("sdxl_refiner", seed=1),
}


@dataclass(frozen=True)
class Second:
    """Second pass of hires fix, by the names of a plan."""

    width_px: int
    height_px: int
    steps: int
    denoise: float
    enlarge: str


@dataclass(frozen=True)
class GoldenImage:
    """Plan of an image, by the names of the engine's plans. With `mask_content` it has an input image and a mask, with
    `denoise` an input image.
    """

    model: str
    sampler: str = "Euler"
    steps: int = 3
    prompt: str = PROMPT
    negative: str = NEGATIVE
    guidance: float = GUIDANCE
    size_px: tuple[int, int] = (SIDE_PX, SIDE_PX)
    seed: int = 7
    denoise: float | None = None
    mask_content: Content | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """Further fields of the plan's sampling."""
    subseed: int | None = None
    subseed_strength: float = 0.0
    second: Second | None = None
    switch_at: float | None = None
    """Share of the timesteps after which the refiner goes on."""
    lora_scales: tuple[float, float] | None = None
    """Scales of the LoRA's changes of the UNet and of the text encoder."""


IMAGES = {
    "euler": GoldenImage("sd1", size_px=(40, 24)),
    "euler a, weights, clip skip": GoldenImage("sd1", "Euler a", prompt=WEIGHTED, sampling={"clip_skip": 2}),
    "dpm++ 2m karras": GoldenImage("sd1", "DPM++ 2M", sampling={"schedule": "Karras"}),
    "heun": GoldenImage("sd1", "Heun", 2),
    "dpm++ sde karras": GoldenImage("sd1", "DPM++ SDE", 2, sampling={"schedule": "Karras"}),
    "ddim": GoldenImage("sd1", "DDIM"),
    "unipc": GoldenImage("sd1", "UniPC"),
    "lcm": GoldenImage("sd1", "LCM", guidance=1.5),
    "img2img": GoldenImage("sd1", "Euler a", 4, denoise=0.6, sampling={"initial_noise_multiplier": 0.9}),
    "mask": GoldenImage("sd1", "Euler a", denoise=0.8, mask_content="original"),
    "mask, noise": GoldenImage("sd1", "DPM++ 2M", denoise=0.8, mask_content="noise", subseed=3, subseed_strength=0.3),
    "mask, nothing, ddim": GoldenImage("sd1", "DDIM", 4, denoise=0.8, mask_content="nothing"),
    "hires": GoldenImage("sd1", steps=2, second=Second(40, 40, 2, 0.6, "latent")),
    "lora": GoldenImage("sd1", steps=2, lora_scales=(0.8, 0.5)),
    "inpainting model": GoldenImage("inpainting", steps=2),
    "inpainting model, mask": GoldenImage("inpainting", denoise=0.9, mask_content="original"),
    "v-prediction": GoldenImage("sd2 v", "DPM++ 2M"),
    "v-prediction, weights, ddim": GoldenImage("sd2 v", "DDIM", 2, prompt=WEIGHTED),
    "sdxl": GoldenImage("sdxl", prompt=WEIGHTED, size_px=(32, 24)),
    "sdxl, empty negative prompt": GoldenImage("sdxl", "Euler a", 2, negative=""),
    "sdxl, hires": GoldenImage("sdxl", steps=1, second=Second(40, 24, 2, 0.7, "latent-bicubic-antialiased")),
    "refiner": GoldenImage("sdxl", "DPM++ 2M", 4, switch_at=0.4),
}
"""Few steps and small sizes: random networks amplify roundings, and the tests draw all of them."""


def photo(width: int = SIDE_PX, height: int = SIDE_PX) -> np.ndarray:
    """Input image (height, width, 3) of bytes: gradients with a red box."""
    rows, columns = np.mgrid[:height, :width]
    levels = np.stack([255 * rows // height, 255 * columns // width, 255 * (rows + columns) // (height + width)], -1)
    levels[4:12, 6:16] = 220, 30, 40
    return levels.astype(np.uint8)


def mask(width: int = SIDE_PX, height: int = SIDE_PX) -> np.ndarray:
    """Mask (height, width) of bytes: a white disc on black, right of the middle."""
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width * 0.65) ** 2 < (0.33 * width) ** 2
    return (255 * inside).astype(np.uint8)


LORA_LAYERS: dict[str, tuple[str, ...]] = {
    "unet": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v",
        "down_blocks.1.resnets.0.conv1",
        "mid_block.attentions.0.proj_in",
        "up_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj",
    ),
    "text_encoder": ("text_model.encoder.layers.0.mlp.fc1", "text_model.encoder.layers.1.self_attn.q_proj"),
}
"""Layers that the LoRA changes, by network, under the names of diffusers."""
_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}


@dataclass(frozen=True)
class LoraLayer:
    """One layer of a LoRA: `up` (outputs, rank, 1, 1) or (outputs, rank), `down` (rank, inputs, ...)."""

    part: str
    name: str
    up: np.ndarray
    down: np.ndarray

    def stored(self) -> dict[str, np.ndarray]:
        """Tensors under kohya's names."""
        name = _PREFIXES[self.part] + self.name.replace(".", "_")
        alpha = np.array(LORA_ALPHA, np.float32)
        return {f"{name}.lora_up.weight": self.up, f"{name}.lora_down.weight": self.down, f"{name}.alpha": alpha}


def lora_layers(weights: dict[str, dict[str, np.ndarray]]) -> list[LoraLayer]:
    """The LoRA for networks with these weights, by network and by the name of a tensor."""
    layers = []
    for part, names in LORA_LAYERS.items():
        for name in names:
            outputs, inputs, *kernel = weights[part][f"{name}.weight"].shape
            points = [1] * len(kernel)
            down = toy_values(f"lora/{part}/{name}.down", (LORA_RANK, inputs, *kernel), 0)
            up = toy_values(f"lora/{part}/{name}.up", (outputs, LORA_RANK, *points), 0)
            layers.append(LoraLayer(part, name, up, down))
    return layers
