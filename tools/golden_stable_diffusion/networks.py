"""Golden outputs of toy networks in PyTorch: tests/golden/stable_diffusion/networks.npz.

    python -m tools.golden_stable_diffusion.networks

The weights are those of tests/support/stable_diffusion_tensors.py, which follow from their names. Each network is
built by diffusers or transformers from the configuration that the toy folder has; what diffusers' own conversion makes
of the toy's single file must be the same tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.support.stable_diffusion import folder_arrays, original_arrays, text_config, unet_config, vae_config
from tests.support.stable_diffusion_networks import (
    DISTILLED_CONFIG,
    GOLDEN_SEED,
    IMAGE,
    LATENTS,
    ODD_LATENTS,
    PICTURE_SIZES,
    TIMESTEPS,
    UNUSUAL,
    VAE_LATENTS,
    golden_input,
    golden_tokens,
)
from tests.support.stable_diffusion_tensors import (
    SIZE_CHANNELS,
    TOY_SIZES,
    Family,
    ToySizes,
    ToyText,
    toy_tensors,
    toy_values,
)

FILE = Path(__file__).parents[2] / "tests" / "golden" / "stable_diffusion" / "networks.npz"
State = dict[str, torch.Tensor]


def main() -> None:
    torch.manual_seed(0)
    goldens: dict[str, np.ndarray] = {}
    for family, sizes in TOY_SIZES.items():
        goldens |= _of_family(family, family, sizes, in_channels=4)
    goldens |= _of_family("inpainting", "sd1", TOY_SIZES["sd1"], in_channels=9)
    goldens |= _of_family("unusual", "sdxl", UNUSUAL, in_channels=4)
    goldens["distilled/unet"] = _distilled()
    FILE.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FILE, **{name: array.astype(np.float32) for name, array in goldens.items()})
    print(f"{FILE.name}: {len(goldens)} arrays, {FILE.stat().st_size} bytes")


def _of_family(name: str, family: Family, sizes: ToySizes, in_channels: int) -> dict[str, np.ndarray]:
    parts = _states(toy_tensors(family, sizes, in_channels=in_channels))
    config = unet_config(sizes, in_channels)
    unet = _loaded(UNet2DConditionModel.from_config(config), parts["unet"])
    goldens = {f"{name}/unet": _predict(unet, sizes, (in_channels, *LATENTS))}
    if name in TOY_SIZES:
        _check_conversion(family, parts, config)
        with joined_as_in_a1111(unet):
            goldens[f"{name}/unet_odd"] = _predict(unet, sizes, (in_channels, *ODD_LATENTS))
    if name != "inpainting":
        for text in sizes.texts:
            goldens |= {f"{name}/{text.part}/{key}": value for key, value in _encode(text, parts[text.part]).items()}
    if name in ("sd1", "unusual"):
        vae = _loaded(AutoencoderKL.from_config(vae_config(sizes, 1.0)), parts["vae"])
        with torch.no_grad():
            goldens[f"{name}/decoded"] = vae.decode(_input("vae", (1, 4, *VAE_LATENTS))).sample.numpy()
            goldens[f"{name}/encoded"] = vae.encode(_input("image", (1, 3, *IMAGE))).latent_dist.mean.numpy()
    return goldens


def _states(tensors: Any) -> dict[str, State]:
    arrays = folder_arrays(tensors, GOLDEN_SEED)
    return {part: {name: torch.from_numpy(array) for name, array in found.items()} for part, found in arrays.items()}


def _loaded(module: Any, state: Mapping[str, torch.Tensor]) -> Any:
    module.load_state_dict(state, strict=True)
    return module.eval()


def _input(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(golden_input(name, shape))


def _predict(unet: Any, sizes: ToySizes, shape: tuple[int, ...]) -> np.ndarray:
    latents, context = _input("latents", (2, *shape)), _input("context", (2, 77, sizes.context))
    added = None
    if sizes.added is not None:
        numbers = PICTURE_SIZES[: 5 if sizes is TOY_SIZES["sdxl_refiner"] else 6]
        pooled = _input("pooled", (2, sizes.added - SIZE_CHANNELS * len(numbers)))
        added = {"text_embeds": pooled, "time_ids": torch.tensor([numbers, numbers])}
    with torch.no_grad():
        return unet(latents, torch.tensor(TIMESTEPS), context, added_cond_kwargs=added).sample.numpy()


@contextmanager
def joined_as_in_a1111(unet: Any) -> Iterator[None]:
    """A1111 doubles, and resizes to the skip's size by the nearest pixels where it joins them (sd_hijack_unet.py)."""
    cat, upsamplers = torch.cat, unet.num_upsamplers

    def resizing(tensors: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if len(tensors) == 2 and tensors[0].ndim == 4 and tensors[0].shape[-2:] != tensors[1].shape[-2:]:
            resized = torch.nn.functional.interpolate(tensors[0], tensors[1].shape[-2:], mode="nearest")
            tensors = (resized, tensors[1])
        return cat(tensors, *args, **kwargs)

    unet.num_upsamplers, torch.cat = 0, resizing
    try:
        yield
    finally:
        unet.num_upsamplers, torch.cat = upsamplers, cat


def _encode(text: ToyText, state: State) -> dict[str, np.ndarray]:
    projects = text.projection is not None
    model = (CLIPTextModelWithProjection if projects else CLIPTextModel)(CLIPTextConfig(**text_config(text)))
    if not any(name.startswith("text_model.") for name in model.state_dict()):
        state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    ids = {name: tensor for name, tensor in model.state_dict().items() if name.endswith("position_ids")}
    model = _loaded(model, state | ids)
    with torch.no_grad():
        out = model(torch.from_numpy(golden_tokens()), output_hidden_states=True)
    return {
        "penultimate": out.hidden_states[-2].numpy(),
        "last": out.last_hidden_state.numpy(),
        "pooled": (out.text_embeds if projects else out.pooler_output).numpy(),
    }


def _distilled() -> np.ndarray:
    """A UNet without attention in its middle, whose depths differ within a level, as SSD-1B's do."""
    unet = UNet2DConditionModel.from_config(DISTILLED_CONFIG)
    state = {
        name: torch.from_numpy(toy_values(f"unet/{name}", tuple(tensor.shape), GOLDEN_SEED))
        for name, tensor in unet.state_dict().items()
    }
    with torch.no_grad():
        return (
            _loaded(unet, state)(
                _input("latents", (2, 4, *LATENTS)), torch.tensor(TIMESTEPS), _input("context", (2, 77, 32))
            )
            .sample.numpy()
        )  # fmt: skip


def _check_conversion(family: Family, parts: dict[str, State], config: dict[str, Any]) -> None:
    """Raises: AssertionError where diffusers converts the toy's single file into other tensors."""
    arrays = original_arrays(toy_tensors(family), GOLDEN_SEED)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    unet = single_file_utils.convert_ldm_unet_checkpoint(dict(state), config)
    _check_same(parts["unet"], unet)
    vae = single_file_utils.convert_ldm_vae_checkpoint(dict(state), vae_config(TOY_SIZES[family], 1.0))
    _check_same(parts["vae"], vae)
    for text in TOY_SIZES[family].texts:
        if text.is_open_clip:
            model = CLIPTextModelWithProjection(CLIPTextConfig(**text_config(text)))
            converted = single_file_utils.convert_open_clip_checkpoint(model, dict(state), prefix=text.prefix)
            wanted = dict(parts[text.part])
            if not any(name.startswith("text_model.") for name in converted):
                wanted = {name.removeprefix("text_model."): tensor for name, tensor in wanted.items()}
            _check_same(wanted, converted)


def _check_same(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    found = {name: tensor for name, tensor in found.items() if not name.endswith("position_ids")}
    assert wanted.keys() == found.keys(), wanted.keys() ^ found.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name].reshape(tensor.shape)), name


if __name__ == "__main__":
    main()
