"""Whole images by the real backend, against those that A1111's samplers draw in PyTorch with the same checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.protocol import Lora, Refiner, Sampling, SecondPass, input_name
from tests.engine.stable_diffusion.test_drawing import spec_of
from tests.support.engine_studio import Studio
from tests.support.stable_diffusion import folder_arrays, toy_checkpoint, write_safetensors
from tests.support.stable_diffusion_images import (
    IMAGES,
    LORA,
    MODELS,
    REFINER,
    GoldenImage,
    lora_layers,
    mask,
    photo,
)
from tests.support.stable_diffusion_tensors import toy_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "stable_diffusion" / "images.npz"
CLOSE = 4
"""Values of 0 to 255 by which pixels may differ."""


class Studios:
    """The toy checkpoints in the real backend, one of them loaded at a time, and the files that plans name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._studios: dict[str, Studio] = {}
        Image.fromarray(photo()).save(folder / "photo.png")
        Image.fromarray(mask()).save(folder / "mask.png")
        self._files = {name: str(folder / f"{name}.png") for name in ("photo", "mask")}

    def draw(self, image: GoldenImage) -> np.ndarray:
        if image.model not in self._studios:
            self._studios = {image.model: self._studio(image.model)}
        said, inputs = self._plan(image)
        return np.asarray(self._studios[image.model].draw(inputs=inputs, **said))

    def _studio(self, model: str) -> Studio:
        studio = Studio(spec_of(MODELS[model].family), self._checkpoint(model), inputs=self._files)
        studio.load()
        return studio

    def _checkpoint(self, model: str) -> Path:
        toy = MODELS[model]
        how: dict[str, Any] = {
            "form": toy.form,
            "inpainting": toy.inpainting,
            "v": toy.v,
            "seed": toy.seed,
            "sizes": toy.sizes,
        }
        return toy_checkpoint(self._folder / model.replace(" ", "_"), toy.family, dtype="float32", **how)

    def _plan(self, image: GoldenImage) -> tuple[dict[str, Any], dict[str, str]]:
        """Fields of the plan, and the files that it names."""
        inputs: dict[str, str] = {}
        refiner = None
        if image.switch_at is not None:
            refiner = Refiner(model=REFINER, switch_at=image.switch_at)
            inputs[input_name("model", REFINER)] = str(self._checkpoint(REFINER))
        said: dict[str, Any] = {
            "prompt": image.prompt,
            "negative_prompt": image.negative,
            "width_px": image.size_px[0],
            "height_px": image.size_px[1],
            "steps": image.steps,
            "guidance": image.guidance,
            "seeds": (image.seed,),
            "sampling": Sampling(**{"sampler": image.sampler, "refiner": refiner, **image.sampling}),
        }
        if image.denoise is not None:
            said |= {"init_image": "photo", "denoise": image.denoise}
        if image.mask_content is not None:
            said |= {"mask": "mask", "mask_content": image.mask_content}
        if image.subseed is not None:
            said |= {"subseeds": (image.subseed,), "subseed_strength": image.subseed_strength}
        if image.second is not None:
            said["second_pass"] = SecondPass(**vars(image.second))
        if image.lora_scales is not None:
            unet, text = image.lora_scales
            said["loras"] = (Lora(name=LORA, scale=unet, text_encoder_scale=text),)
            inputs[LORA] = str(self._lora(image.model))
        return said, inputs

    def _lora(self, model: str) -> Path:
        toy = MODELS[model]
        layers = lora_layers(folder_arrays(toy_tensors(toy.family), toy.seed))
        tensors = {name: array for layer in layers for name, array in layer.stored().items()}
        write_safetensors(path := self._folder / f"{LORA}.safetensors", tensors, "float32", {"format": "pt"})
        return path


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> Studios:
    return Studios(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", IMAGES)
def test_image_has_the_pixels_of_pytorch(name: str, studios: Studios) -> None:
    image = IMAGES[name]
    with np.load(GOLDEN) as golden:
        wanted = golden[name].astype(int)
    found = studios.draw(image).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= CLOSE
