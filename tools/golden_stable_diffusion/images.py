"""Golden images of toy checkpoints: tests/golden/stable_diffusion/images.npz.

    python -m tools.golden_stable_diffusion.images --webui PATH

PATH is a checkout of AUTOMATIC1111/stable-diffusion-webui 1.10.1. Its own samplers, step rules and noise draw with the
networks of diffusers and transformers; what it does around them (processing.py, sd_hijack_clip.py, sd_emphasis.py,
sd_models_xl.py) is written out here. No code of the engine takes part. The plans are those of
tests/support/stable_diffusion_images.py.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.support.stable_diffusion import folder_arrays, text_config, unet_config, vae_config
from tests.support.stable_diffusion_images import (
    IMAGES,
    LORA_ALPHA,
    LORA_RANK,
    MODELS,
    REFINER,
    TOKENS,
    GoldenImage,
    Second,
    ToyModel,
    lora_layers,
    mask,
    photo,
)
from tests.support.stable_diffusion_tensors import ToyText, toy_tensors
from tools.golden_stable_diffusion import webui
from tools.golden_stable_diffusion.networks import joined_as_in_a1111

FILE = Path(__file__).parents[2] / "tests" / "golden" / "stable_diffusion" / "images.npz"
START, END, WINDOW = 49406, 49407, 77
CELL_PX = 8
AESTHETIC_SCORES = {"prompt": 6.0, "negative": 2.5}
ENLARGEMENTS = {"latent": ("bilinear", False), "latent-bicubic-antialiased": ("bicubic", True)}
Weights = dict[str, dict[str, np.ndarray]]
Encoded = tuple[torch.Tensor, torch.Tensor | None]
"""Context (1, 77, channels), and the pooled text (1, channels) of SDXL."""


@dataclass(frozen=True)
class Networks:
    """A toy checkpoint in PyTorch."""

    toy: ToyModel
    unet: Any
    texts: tuple[tuple[ToyText, Any], ...]
    vae: Any

    @property
    def is_sdxl(self) -> bool:
        return self.toy.family.startswith("sdxl")

    @property
    def factor(self) -> float:
        return float(self.vae.config.scaling_factor)

    def to_latents(self, pixels: np.ndarray) -> torch.Tensor:
        """Latents (1, 4, h, w) of an image (H, W, 3) from -1 to 1: the mean."""
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32))
        return self.vae.encode(image).latent_dist.mean * self.factor

    def to_pixels(self, latents: torch.Tensor) -> np.ndarray:
        """Image (H, W, 3) of bytes."""
        image = torch.clamp((self.vae.decode(latents / self.factor).sample[0] + 1.0) / 2.0, min=0.0, max=1.0)
        return (255.0 * np.moveaxis(image.float().numpy(), 0, 2)).astype(np.uint8)

    def encode(self, prompt: str, clip_skip: int, *, is_negative: bool) -> Encoded:
        """A prompt of at most one chunk."""
        words = re.findall(r"\((\w+):([\d.]+)\)|(\w+)", prompt)
        ids = [TOKENS[weighted or plain] for weighted, _, plain in words]
        weights = [float(number or 1.0) for _, number, _ in words]
        weights = [1.0, *weights, *[1.0] * (WINDOW - 1 - len(weights))]
        found = [self._encode(text, model, ids, weights, clip_skip) for text, model in self.texts]
        context, pooled = torch.cat([states for states, _ in found], dim=-1), found[-1][1]
        if self.is_sdxl and is_negative and not prompt:
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        return context, pooled

    def _encode(self, text: ToyText, model: Any, ids: list[int], weights: list[float], clip_skip: int) -> Encoded:
        padding = 0 if text.is_open_clip else END
        tokens = [START, *ids, END, *[padding] * (WINDOW - 2 - len(ids))]
        out = model(torch.tensor([tokens]), output_hidden_states=True)
        norm = getattr(model, "text_model", model).final_layer_norm
        if self.toy.family == "sd2":
            z = norm(out.hidden_states[-2])
        elif self.is_sdxl:
            z = out.hidden_states[-2]
        else:
            z = norm(out.hidden_states[-clip_skip]) if clip_skip > 1 else out.last_hidden_state
        if any(weight != 1.0 for weight in weights):
            mean = z.mean()
            z = z * torch.tensor(weights)[None, :, None]
            z = z * (mean / z.mean())
        return z, out.text_embeds if text.projection is not None else None


def built(toy: ToyModel, lora_scales: tuple[float, float] | None = None) -> Networks:
    """The networks of a toy checkpoint, with the LoRA merged into them where it has scales."""
    sizes = toy.sizes
    channels = 9 if toy.inpainting else 4
    weights = folder_arrays(toy_tensors(toy.family, sizes, in_channels=channels), toy.seed)
    if lora_scales is not None:
        _merge_lora(weights, dict(zip(("unet", "text_encoder"), lora_scales, strict=True)))
    factor = 0.13025 if toy.family.startswith("sdxl") else 0.18215
    texts = []
    for text in sizes.texts:
        kind = CLIPTextModel if text.projection is None else CLIPTextModelWithProjection
        texts.append((text, _loaded(kind(CLIPTextConfig(**text_config(text))), weights[text.part])))
    return Networks(
        toy,
        _loaded(UNet2DConditionModel.from_config(unet_config(sizes, channels)), weights["unet"]),
        tuple(texts),
        _loaded(AutoencoderKL.from_config(vae_config(sizes, factor)), weights["vae"]),
    )


def _merge_lora(weights: Weights, scales: Mapping[str, float]) -> None:
    for layer in lora_layers(weights):
        up, down = layer.up.reshape(len(layer.up), LORA_RANK), layer.down.reshape(LORA_RANK, -1)
        name = f"{layer.name}.weight"
        delta = (up @ down).reshape(weights[layer.part][name].shape)
        weights[layer.part][name] = weights[layer.part][name] + scales[layer.part] * LORA_ALPHA / LORA_RANK * delta


def _loaded(module: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    own = module.state_dict()
    state = {name if name in own else name.removeprefix("text_model."): array for name, array in arrays.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for name, array in state.items()}
    ids = {name: tensor for name, tensor in own.items() if name.endswith("position_ids")}
    module.load_state_dict(tensors | ids, strict=True)
    return module.eval()


@dataclass(frozen=True)
class Conditions:
    """What both prompts make of the network, for an image of one size."""

    networks: Networks
    context: torch.Tensor
    """(2, 77, channels): the prompt and the negative prompt."""
    added: dict[str, torch.Tensor] | None

    @classmethod
    def of(cls, networks: Networks, image: GoldenImage, size_px: tuple[int, int]) -> Conditions:
        skip = image.sampling.get("clip_skip", 1)
        prompt = networks.encode(image.prompt, skip, is_negative=False)
        negative = networks.encode(image.negative, skip, is_negative=True)
        context = torch.cat([prompt[0], negative[0]])
        if prompt[1] is None or negative[1] is None:
            return cls(networks, context, None)
        width, height = size_px
        numbers = [[height, width, 0, 0, height, width]] * 2
        if networks.toy.family == "sdxl_refiner":
            numbers = [[height, width, 0, 0, score] for score in AESTHETIC_SCORES.values()]
        pooled = torch.cat([prompt[1], negative[1]])
        return cls(networks, context, {"text_embeds": pooled, "time_ids": torch.tensor(numbers, dtype=torch.float32)})

    def predict(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Predictions (2, 4, h, w) for the prompt and the negative prompt."""
        unet, pair = self.networks.unet, torch.cat([x, x])
        with joined_as_in_a1111(unet):
            return unet(pair, timestep.reshape(1), self.context, added_cond_kwargs=self.added).sample


class GuidedModel(webui.ToyModel):
    """The networks as A1111's samplers call them: guided, with the refiner at its timesteps."""

    def __init__(
        self,
        base: Conditions,
        extra: torch.Tensor | None = None,
        refiner: Conditions | None = None,
        switch_at: float | None = None,
    ) -> None:
        toy = base.networks.toy
        super().__init__(None, "v" if toy.v else "eps", is_sdxl=base.networks.is_sdxl)
        self.now, self.extra, self.next, self.switch_at = base, extra, refiner, switch_at

    def apply_model(self, x: torch.Tensor, timestep: torch.Tensor, cond: Any) -> torch.Tensor:
        """The guided prediction, `cond` being the guidance."""
        reached = (999 - round(float(timestep))) / 1000
        if self.next is not None and self.switch_at is not None and reached >= self.switch_at:
            self.now, self.next = self.next, None
        inputs = x if self.extra is None else torch.cat([x, self.extra], dim=1)
        found, negative = self.now.predict(inputs, timestep).chunk(2)
        return negative + cond * (found - negative)


@dataclass
class Drawing:
    """One image, as A1111 processes it."""

    image: GoldenImage
    base: Networks
    refiner: Networks | None
    module: Any
    kept: torch.Tensor | None = None
    """Mask (h, w) of latents: 1 where the input image stays."""
    decoder: Networks = field(init=False)

    def draw(self) -> np.ndarray:
        image = self.image
        width, height = image.size_px
        self.decoder = self.base
        noise = self._rng(width, height)
        if image.denoise is None:
            sampler, p = self._sampler(self._model(image.size_px, is_last=image.second is None), noise, image)
            latents = sampler.sample(p, noise.next(), None, None)
        else:
            latents = self._from_photo(noise)
        if image.second is not None:
            latents = self._second_pass(latents, image.second)
        return self._pasted(self.decoder.to_pixels(latents))

    def _from_photo(self, noise: Any) -> torch.Tensor:
        image, (width, height) = self.image, self.image.size_px
        pixels = photo(width, height)
        init = self.base.to_latents(pixels.astype(np.float32) / 255.0 * 2 - 1)
        if image.mask_content is not None:
            small = Image.fromarray(mask(width, height)).convert("RGB").resize((width // CELL_PX, height // CELL_PX))
            repainted = np.around(np.asarray(small, dtype=np.float32)[:, :, 0] / 255)
            self.kept = torch.from_numpy(1.0 - repainted)
            if image.mask_content == "noise":
                fresh = self.module.rng.ImageRNG(init.shape[1:], [image.seed]).next()
                init = init * self.kept + fresh * (1.0 - self.kept)
            elif image.mask_content == "nothing":
                init = init * self.kept
        x = noise.next() * image.sampling.get("initial_noise_multiplier", 1.0)
        sampler, p = self._sampler(self._model(image.size_px, is_last=True), noise, image)
        latents = sampler.sample_img2img(p, init, x, None, None)
        return latents if self.kept is None else latents * (1.0 - self.kept) + init * self.kept

    def _second_pass(self, latents: torch.Tensor, second: Second) -> torch.Tensor:
        width, height = self.image.size_px
        wide, tall = second.width_px, second.width_px * height // width
        if width / height >= second.width_px / second.height_px:
            wide, tall = second.height_px * width // height, second.height_px
        mode, antialias = ENLARGEMENTS[second.enlarge]
        size = (tall // CELL_PX, wide // CELL_PX)
        latents = torch.nn.functional.interpolate(latents, size=size, mode=mode, antialias=antialias)
        x, y = (wide - second.width_px) // CELL_PX, (tall - second.height_px) // CELL_PX
        latents = latents[:, :, y // 2 : latents.shape[2] - (y + 1) // 2, x // 2 : latents.shape[3] - (x + 1) // 2]
        noise = self._rng(second.width_px, second.height_px)
        model = self._model((wide, tall), is_last=True)
        sampler, p = self._sampler(model, noise, self.image, second)
        return sampler.sample_img2img(p, latents, noise.next(), None, None, steps=second.steps)

    def _model(self, size_px: tuple[int, int], *, is_last: bool) -> GuidedModel:
        refiner = None
        if self.refiner is not None and is_last:
            refiner = Conditions.of(self.refiner, self.image, size_px)
            self.decoder = self.refiner
        extra = self._further_channels(*size_px) if self.base.toy.inpainting else None
        return GuidedModel(Conditions.of(self.base, self.image, size_px), extra, refiner, self.image.switch_at)

    def _further_channels(self, width: int, height: int) -> torch.Tensor:
        """Mask and masked image of an inpainting model: without a mask grey, which is 0 between -1 and 1."""
        pixels, repainted = np.zeros((height, width, 3)), np.ones((height, width))
        if self.image.mask_content is not None:
            repainted = np.around(mask(width, height) / 255.0)
            pixels = (photo(width, height) / 255.0 * 2 - 1) * (1.0 - repainted[:, :, None])
        latents = self.base.to_latents(pixels)
        small = torch.nn.functional.interpolate(torch.from_numpy(repainted)[None, None].float(), latents.shape[-2:])
        return torch.cat([small, latents], dim=1)

    def _rng(self, width: int, height: int) -> Any:
        image = self.image
        return self.module.rng.ImageRNG(
            (4, height // CELL_PX, width // CELL_PX),
            [image.seed],
            subseeds=None if image.subseed is None else [image.subseed],
            subseed_strength=image.subseed_strength,
        )

    def _sampler(
        self, model: GuidedModel, noise: Any, image: GoldenImage, second: Second | None = None
    ) -> tuple[Any, SimpleNamespace]:
        schedule = image.sampling.get("schedule", "Automatic")
        webui.shared.sd_model = model
        self.module.levels.apply_alpha_schedule_override(model)
        p = SimpleNamespace(
            mask=self.kept,
            nmask=None if self.kept is None else 1.0 - self.kept,
            sampler_name=image.sampler,
            scheduler=schedule,
            hr_scheduler=schedule,
            steps=image.steps,
            denoising_strength=image.denoise if second is None else second.denoise,
            is_hr_pass=second is not None,
            cfg_scale=image.guidance,
            eta=None,
            s_min_uncond=0.0,
            s_churn=0.0,
            s_tmin=0.0,
            s_tmax=float("inf"),
            s_noise=1.0,
            sampler_noise_scheduler_override=None,
            extra_generation_params={},
            all_seeds=[image.seed],
            iteration=0,
            batch_size=1,
            rng=noise,
        )
        return self.module.samplers.create_sampler(image.sampler, model), p

    def _pasted(self, pixels: np.ndarray) -> np.ndarray:
        """The image with the input image where the mask is black."""
        if self.image.mask_content is None:
            return pixels
        width, height = self.image.size_px
        return np.where(mask(width, height)[:, :, None] > 0, pixels, photo(width, height))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webui", type=Path, required=True)
    module = webui.load(parser.parse_args().webui)
    warnings.simplefilter("ignore")
    networks = {name: built(toy) for name, toy in MODELS.items()}
    found = {}
    for name, image in IMAGES.items():
        base = networks[image.model]
        if image.lora_scales is not None:
            base = built(MODELS[image.model], image.lora_scales)
        refiner = None if image.switch_at is None else networks[REFINER]
        found[name] = Drawing(image, base, refiner, module).draw()
        spread = found[name].reshape(-1, 3).std(axis=0).round(1)
        print(f"{name}: {found[name].shape}, standard deviations {spread}")
    np.savez_compressed(FILE, **found)
    print(f"{FILE.name}: {len(found)} images, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
