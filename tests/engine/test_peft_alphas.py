"""Alphas in the metadata of PEFT's files, and files that would make their reader work for hours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.lora_layouts.peft_alphas import METADATA, PeftAlphas

LAYER = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q"


def alphas(**config: Any) -> PeftAlphas:
    return PeftAlphas({METADATA: json.dumps(config)})


def unet(pattern: str, alpha: float = 3.0) -> PeftAlphas:
    return alphas(**{"unet.lora_alpha": 8, "unet.alpha_pattern": {pattern: alpha}})


def test_peft_alpha_is_that_of_the_component() -> None:
    found = alphas(**{"unet.lora_alpha": 8, "text_encoder.lora_alpha": 4.5})
    assert found.alpha(f"unet.{LAYER}.lora_A.weight", 4) == 8
    assert found.alpha("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.default.weight", 4) == 4.5
    assert found.alpha(f"{LAYER}.lora_A.weight", 4) is None
    assert found.alpha("lora_unet_conv_in.lora_down.weight", 4) is None
    assert alphas(**{"unet.lora_alpha": 8}).alpha(f"{LAYER}.lora_B.weight", 4) == 8
    assert alphas(lora_alpha=6).alpha(f"anything.{LAYER}.lora_A.weight", 4) == 6
    assert PeftAlphas({}).alpha(f"{LAYER}.lora_A.weight", 4) is None
    assert PeftAlphas({METADATA: "not JSON"}).alpha(f"{LAYER}.lora_A.weight", 4) is None


def test_peft_alpha_of_rank_stabilised_files_is_divided_by_the_root_of_the_rank() -> None:
    assert alphas(lora_alpha=6, use_rslora=True).alpha(f"{LAYER}.lora_A.weight", 4) == 12


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("to_q", True),
        ("attn1.to_q", True),
        ("n1.to_q", False),
        (LAYER, True),
        (f"^{LAYER}", True),
        (f"^{LAYER}$", True),
        ("^attn1.to_q", False),
        ("attn1", False),
        (r"attn1\.to_q", True),
        ("transformer_blocks.*.to_q", True),
        ("transformer_blocks.*.to_k", False),
        ("^down_blocks.*attn1.*", True),
        ("^attentions.*", False),
        (".*attn1.*q", True),
        (".*attn2.*q", False),
    ],
)
def test_peft_alpha_pattern_is_for_the_end_of_a_name(pattern: str, fits: bool) -> None:
    assert unet(pattern).alpha(f"unet.{LAYER}.lora_A.weight", 4) == (3 if fits else 8)


def test_peft_alpha_of_first_pattern_counts() -> None:
    patterns = {"to_k": 1, ".*to_q": 2, "to_q": 3}
    assert alphas(lora_alpha=8, alpha_pattern=patterns).alpha(f"{LAYER}.lora_A.weight", 4) == 2


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": "much"},
        {"lora_alpha": [8]},
        {"lora_alpha": True},
        {"lora_alpha": 8, "alpha_pattern": ["to_q"]},
        {"lora_alpha": 8, "alpha_pattern": {"to_q": None}},
        {"lora_alpha": 8, "alpha_pattern": {"([a-z_.]+)+x": 1}},
        {"lora_alpha": 8, "alpha_pattern": {f"a.*{'b' * 600}": 1}},
        {"lora_alpha": 8, "alpha_pattern": {f".*{number}": 1 for number in range(101)}},
    ],
)
def test_peft_metadata_that_cannot_be_read_in_bounded_time_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="metadata"):
        alphas(**config)


def test_peft_metadata_of_any_size_is_looked_up_and_not_searched() -> None:
    components = {f"c{number}.lora_alpha": 1 for number in range(50_000)}
    patterns = {f"p{number}": 1 for number in range(50_000)}
    found = alphas(**components, **{"unet.lora_alpha": 8, "unet.alpha_pattern": {**patterns, "to_q": 3}})
    assert {found.alpha(f"unet.{LAYER}.lora_A.weight", 4) for _ in range(2000)} == {3}
    with pytest.raises(ValueError, match="metadata"):
        PeftAlphas({METADATA: "[" * 100_000})
