"""What clients are told of a LoRA: how many of its tensors count, and why one cannot be put on (S-20)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from gateway.models.lora_layers import fit_of, names_of
from tests.models.test_loras_http import PROTOCOLS, SMALL, asked_by
from tests.support.engine import SPECS
from tests.support.live import Live, live
from tests.support.lora import TINY, save_lora

Shapes = Mapping[str, tuple[int, ...]]
OTHERS: Shapes = {
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (3072, 4),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": (),
}
FAR: Shapes = {
    "transformer.single_transformer_blocks.99.attn.to_out.lora_A.weight": (4, 768),
    "transformer.single_transformer_blocks.99.attn.to_out.lora_B.weight": (192, 4),
}
SINGLE = "transformer.single_transformer_blocks.0.attn.to_out"


def pair(layer: str, inputs: int, outputs: int, down: str = "lora_down", up: str = "lora_up") -> Shapes:
    return {f"{layer}.{down}.weight": (8, inputs), f"{layer}.{up}.weight": (outputs, 8)}


_XL = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_k"
STABLE_DIFFUSION: dict[str, Shapes] = {
    "SDXL": pair(_XL, 2048, 640),
    "Stable Diffusion 1.5": pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768, 320),
    "Stable Diffusion 2": pair("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v", 1024, 1280),
    "the SDXL refiner": pair("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v", 1280, 1536),
    "Stable Diffusion (1.5, 2 or XL)": pair("lora_unet_up_blocks_1_resnets_0_conv1", 320, 320),
}
UNSUPPORTED: dict[str, Shapes] = {
    "Wan": pair("diffusion_model.blocks.0.self_attn.q", 5120, 5120, "lora_A", "lora_B"),
    "HunyuanVideo": {
        **pair("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
        **pair("lora_unet_double_blocks_0_img_mlp_fc1", 3072, 12288),
    },
    "Stable Diffusion 3": pair("diffusion_model.joint_blocks.0.x_block.attn.qkv", 1536, 4608),
    "HiDream": pair("diffusion_model.double_stream_blocks.0.block.attn1.to_q", 2560, 2560, "lora_A", "lora_B"),
    "AuraFlow": pair("lora_unet_joint_transformer_blocks_0_attn_to_q", 3072, 3072),
    "Chroma": pair("diffusion_model.distilled_guidance_layer.in_proj", 64, 5120),
    "a language model": pair("base_model.model.model.layers.0.self_attn.q_proj", 4096, 4096, "lora_A", "lora_B"),
}


@pytest.mark.parametrize("family", {**STABLE_DIFFUSION, **UNSUPPORTED})
@pytest.mark.parametrize("model", ["flux1-dev", "flux2-klein-4b", "qwen-image", "z-image-turbo", "flux2-tiny"])
def test_lora_of_another_family_is_identified_by_name(family: str, model: str) -> None:
    fit = fit_of({**STABLE_DIFFUSION, **UNSUPPORTED}[family])
    assert (fit.stable_diffusion if family in STABLE_DIFFUSION else fit.family) == family
    assert fit.of(SPECS[model]) is False


REFUSED: dict[str, tuple[Shapes, str]] = {
    "sdxl": (STABLE_DIFFUSION["SDXL"], "LoRA 'sdxl' does not fit flux2-tiny: it is for SDXL."),
    "wan": (UNSUPPORTED["Wan"], "LoRA 'wan' does not fit flux2-tiny: it is for Wan."),
    "nothing": ({"x.lora_A.weight": (4, 4)}, "LoRA 'nothing' does not fit flux2-tiny: it changes none of its layers."),
    "oft": (
        {f"{SINGLE}.oft_blocks": (4, 8, 8)},
        "LoRA 'oft' does not fit flux2-tiny: it uses OFT, which cannot be applied here.",
    ),
    "half": (
        {f"{SINGLE}.lora_A.weight": (4, 768)},
        "LoRA 'half' does not fit flux2-tiny: it lacks up of single_transformer_blocks.0.attn.to_out.",
    ),
    "twice": (
        {**TINY, f"diffusion_model.{SINGLE.removeprefix('transformer.')}.lora_A.weight": (4, 768)},
        "LoRA 'twice' does not fit flux2-tiny: it names single_transformer_blocks.0.attn.to_out twice.",
    ),
    "wide": (
        {f"{SINGLE}.lora_A.weight": (4, 700), f"{SINGLE}.lora_B.weight": (192, 4)},
        "LoRA 'wide' does not fit flux2-tiny: it has other sizes at single_transformer_blocks.0.attn.to_out.",
    ),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("answers")
    there = folder / "models" / "loras"
    save_lora(there, "whole", TINY)
    save_lora(there, "partly", {**TINY, **OTHERS, **FAR})
    for name, (shapes, _) in REFUSED.items():
        save_lora(there, name, shapes)
    with live(
        folder, config={"models": {"cache_dir": str(folder / "models")}}, fake_script={"step_seconds": 0.0}
    ) as one:
        yield one


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as made:
        yield made


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("lora", REFUSED)
def test_lora_that_cannot_be_applied_exactly_is_refused_by_name(client: httpx.Client, protocol: str, lora: str) -> None:
    before = client.get("/api/v1/jobs", params={"limit": 1}).json()["jobs"]
    path, body = asked_by(protocol, lora)
    refused = client.post(path, json=body)
    assert refused.status_code == (422 if protocol.startswith("sdapi") else 400)
    assert REFUSED[lora][1] in json.dumps(refused.json(), ensure_ascii=False)
    assert client.get("/api/v1/jobs", params={"limit": 1}).json()["jobs"] == before


def adjustments_of(client: httpx.Client, protocol: str, answer: httpx.Response) -> list[dict[str, Any]]:
    if protocol.startswith("sdapi"):
        return list(json.loads(answer.json()["info"])["adjustments"])
    if protocol == "openai":
        return list(answer.json()["adjustments"])
    return list(client.get("/api/v1/jobs", params={"limit": 1}).json()["jobs"][0]["adjustments"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lora_response_reports_used_tensor_count_when_partial(client: httpx.Client, protocol: str) -> None:
    told = {}
    for lora in ("whole", "partly"):
        path, body = asked_by(protocol, lora)
        answer = client.post(path, json=body)
        assert answer.status_code == 200
        told[lora] = [a["reason"] for a in adjustments_of(client, protocol, answer) if "tensors" in a["reason"]]
    (reason,) = told["partly"]
    assert told["whole"] == []
    assert reason == (
        "used 2 of 7 tensors: 3 are for the text encoder and 2 belong to no layer of this model, such as "
        "transformer.single_transformer_blocks.99.attn.to_out.lora..."
    )


def test_lora_is_listed_in_infotext_and_loras_page(client: httpx.Client) -> None:
    body = {**SMALL, "prompt": "a red circle <lora:whole:1> <lora:partly:1>"}
    info = json.loads(client.post("/sdapi/v1/txt2img", json=body).json()["info"])
    assert 'Lora tensors: "whole: 2 of 2, partly: 2 of 7"' in info["infotexts"][0]
    for name, total in (("whole", 2), ("partly", 7)):
        shown = client.get(f"/api/v1/loras/{name}").json()
        assert (shown["tensors"], shown["tensors_used"]["flux2-tiny"]) == (total, 2)
    assert client.get("/api/v1/loras/wan").json()["trouble"] == "It is for Wan."
    assert client.get("/api/v1/loras/sdxl").json()["trouble"] is None


def test_lora_eight_bit_numbers_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    from gateway.models.loras import LoraLibrary

    folder = tmp_path_factory.mktemp("eight")
    file = save_lora(folder, "x", TINY)
    file.write_bytes(eight_bits(file.read_bytes()))
    lora = LoraLibrary([folder]).find("x")
    assert lora is not None
    assert lora.trouble == "LoRA 'x' cannot be used: its numbers are of the type F8_E4M3."


def eight_bits(written: bytes) -> bytes:
    length = int.from_bytes(written[:8], "little")
    header = written[8 : 8 + length].replace(b'"U8"', b'"F8_E4M3"')
    return len(header).to_bytes(8, "little") + header + written[8 + length :]


def test_lora_for_one_of_several_similar_models_matches_only_that_one() -> None:
    """FLUX.1 and the small Klein are equally wide and call layers alike."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(19):
        shapes |= pair(f"transformer.transformer_blocks.{block}.attn.to_q", 3072, 3072, "lora_A", "lora_B")
    assert "flux1-dev" in names_of(fit_of(shapes).models)
    assert "flux2-klein-4b" not in names_of(fit_of(shapes).models)
