"""Images of a toy checkpoint with LoRAs: on, off, of text encoders alone, and after one that was refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engine.drawing.base import BackendError
from engine.protocol import Lora
from tests.engine.stable_diffusion.test_drawing import studio_of
from tests.engine.stable_diffusion.test_lora_names import toy_modules
from tests.support import lora_files as files
from tests.support import lora_kernels as kernels
from tests.support.engine_studio import Studio, differs
from tests.support.lora_files import Made

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}


@pytest.fixture(scope="module", name="studio")
def studio_with_loras(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A toy of SD 1 with the LoRAs `unet` and `text`, `both` of them, and one of other sizes, `wide`."""
    folder = tmp_path_factory.mktemp("loras")
    studio = studio_of(folder, "sd1")
    random = np.random.default_rng(2)
    changes: dict[str, dict[str, Made]] = {network: {} for network in PREFIXES}
    for path, module in toy_modules("sd1").items():
        network, _, rest = path.partition(".")
        if module.inputs is not None and rest.endswith(("conv_in", "attn2.to_k", "mlp.fc1")):
            points = (module.kernel, module.kernel) if module.kernel > 1 else ()
            made = kernels.locon()(np.zeros((module.outputs, module.inputs, *points)), random)
            changes[network][f"{PREFIXES[network]}{rest.replace('.', '_')}"] = made
    wide = kernels.locon()(np.zeros((32, 48, 3, 3)), random)
    for name, layers in {
        "unet": changes["unet"],
        "text": changes["text_encoder"],
        "both": changes["unet"] | changes["text_encoder"],
        "wide": {"lora_unet_conv_in": wide},
    }.items():
        files.save(folder / f"{name}.safetensors", layers)
        studio.inputs[name] = str(folder / f"{name}.safetensors")
    studio.load()
    return studio


def drawn(studio: Studio, *loras: Lora) -> Image.Image:
    return studio.draw(loras=loras, steps=1, guidance=1.0)


@pytest.fixture(scope="module")
def bare(studio: Studio) -> Image.Image:
    return drawn(studio)


def test_lora_changes_image_and_is_taken_off_again(studio: Studio, bare: Image.Image) -> None:
    for name in ("unet", "text", "both"):
        assert differs(bare, drawn(studio, Lora(name=name, scale=0.5)), by=2), name
    assert not differs(bare, drawn(studio))


def test_lora_scales_of_unet_and_text_encoders_are_apart(studio: Studio) -> None:
    unet, text = Lora(name="unet", scale=0.4), Lora(name="text", scale=-0.6)
    both = Lora(name="both", scale=0.4, text_encoder_scale=-0.6)
    assert not differs(drawn(studio, unet, text), drawn(studio, both), by=1)
    assert not differs(drawn(studio, unet), drawn(studio, Lora(name="both", scale=0.4, text_encoder_scale=0.0)), by=1)
    assert differs(drawn(studio, both), drawn(studio, Lora(name="both", scale=0.4)))


def test_lora_that_is_refused_leaves_neither_weights_nor_encoded_prompts(studio: Studio, bare: Image.Image) -> None:
    drawn(studio, Lora(name="text", scale=0.5))
    with pytest.raises(BackendError, match=r"LoRA 'wide' cannot be used: it has other sizes at unet\.conv_in"):
        drawn(studio, Lora(name="text", scale=0.5), Lora(name="wide"))
    assert not differs(bare, drawn(studio))
