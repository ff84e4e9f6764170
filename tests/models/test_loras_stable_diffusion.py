"""LoRAs in the library for models of Stable Diffusion: which fit, how much is used, and why others are refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import ModelSpec
from engine.lora_layouts import STANDARD
from engine.lora_layouts.stable_diffusion_modules import modules_of
from engine.protocol import Lora
from gateway.models.lora_layers import fit_of
from gateway.models.loras import LoraLibrary
from tests.support.engine import SPECS
from tests.support.lora import FLUX1, UNKNOWN, Z_IMAGE, save_lora

Shapes = dict[str, tuple[int, ...]]
FAMILIES = ("sd1", "sd2", "sdxl", "sdxl_refiner")
PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


def spec_of(family: Any, geometry: str | None = None) -> ModelSpec:
    changed = {"name": f"my-{family}", "family": family, "geometry": geometry or family}
    return SPECS["flux1-dev"].model_copy(update=changed)


def kohya(family: str, networks: Iterable[str] = tuple(PREFIXES), ends: tuple[str, ...] = ("",)) -> Shapes:
    """A file as sd-scripts writes it: all linear layers of attentions and text encoders."""
    found: Shapes = {}
    for path, module in modules_of(STANDARD[family]).items():
        network, _, rest = path.partition(".")
        is_trained = any(part in rest for part in ("attentions.", "self_attn.", "mlp."))
        if network in networks and is_trained and module.inputs is not None and rest.endswith(ends):
            prefix = "lora_te1_" if network == "text_encoder" and family == "sdxl" else PREFIXES[network]
            layer = f"{prefix}{rest.replace('.', '_')}"
            found |= {
                f"{layer}.lora_down.weight": (4, module.inputs),
                f"{layer}.lora_up.weight": (module.outputs, 4),
                f"{layer}.alpha": (),
            }
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_of_a_family_fits_its_models_alone(family: str) -> None:
    shapes = kohya(family)
    fit = fit_of(shapes)
    assert (fit.total, fit.rank, fit.family) == (len(shapes), 4, None)
    assert {one for one in FAMILIES if fit.of(spec_of(one))} == {family}
    assert fit.of(SPECS["flux1-dev"]) is False
    use = fit.use_on(spec_of(family))
    assert use is not None
    assert (use.used, use.rest, use.unfit) == (len(shapes), None, None)


def test_lora_that_changes_what_families_share_fits_all_of_them() -> None:
    """Self-attention is alike in SD 1 and SD 2."""
    fit = fit_of(kohya("sd1", ["unet"], ("attn1.to_q", "attn1.to_v")))
    assert [family for family in FAMILIES if fit.of(spec_of(family))] == ["sd1", "sd2"]


def test_lora_of_text_encoder_alone_fits_its_family() -> None:
    fit = fit_of(kohya("sd1", ["text_encoder"]))
    assert [family for family in FAMILIES if fit.of(spec_of(family))] == ["sd1"]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_lora_on_a_model_of_other_sizes_is_left_to_the_engine(family: str) -> None:
    fit = fit_of(kohya(family))
    assert fit.of(spec_of(family, "some-sizes")) is None
    assert fit.of(spec_of("sd1" if family == "sdxl" else "sdxl", "some-sizes")) is False
    for shapes in (FLUX1, Z_IMAGE, UNKNOWN):
        assert fit_of(shapes).of(spec_of(family, "some-sizes")) is False


@pytest.mark.parametrize(
    ("shapes", "family", "why"),
    [
        (kohya("sdxl"), "sd1", "is for SDXL"),
        (kohya("sdxl"), "sdxl_refiner", "is for SDXL"),
        (kohya("sdxl_refiner"), "sdxl", "is for the SDXL refiner"),
        (kohya("sd1"), "sd2", "is for Stable Diffusion 1.5"),
        (kohya("sd2"), "sd1", "is for Stable Diffusion 2"),
        (FLUX1, "sd1", "is for flux1-schnell and flux1-dev"),
        (UNKNOWN, "sdxl", "changes none of its layers"),
        (
            {"lora_unet_mid_block_attentions_0_proj_in.oft_blocks": (4, 320, 320)},
            "sd1",
            "uses OFT, which cannot be applied here",
        ),
    ],
)
def test_lora_of_another_family_is_refused_with_its_family(
    shapes: Shapes, family: str, why: str, tmp_path: Path
) -> None:
    save_lora(tmp_path, "x", shapes)
    trouble = LoraLibrary([tmp_path]).known([Lora(name="x")], spec_of(family))["x"].trouble
    assert trouble is not None
    assert trouble.startswith(f"LoRA 'x' does not fit my-{family}: it {why}")


def test_lora_tells_how_many_of_its_tensors_are_used(tmp_path: Path) -> None:
    used = kohya("sd1", ["unet"])
    save_lora(tmp_path, "x", {**used, "bundle_emb.ink.emb_params": (2, 768), "lora_unet_further.alpha": ()})
    known = LoraLibrary([tmp_path]).known([Lora(name="x")], spec_of("sd1"))["x"]
    assert (known.trouble, known.tensors_used, known.tensors) == (None, len(used), len(used) + 2)
    assert known.rest == (
        "1 are of embeddings in the file, such as 'ink' and 1 belong to no layer of this model, such as "
        "lora_unet_further.alpha"
    )


def test_lora_of_flux_with_its_text_encoder_is_not_for_stable_diffusion() -> None:
    text = {name.replace("lora_te_", "lora_te1_"): shape for name, shape in kohya("sd1", ["text_encoder"]).items()}
    fit = fit_of({**FLUX1, **text})
    assert fit.of(SPECS["flux1-dev"])
    assert not any(fit.of(spec_of(family)) for family in FAMILIES)
