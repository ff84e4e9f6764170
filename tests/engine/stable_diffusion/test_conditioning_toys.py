"""Conditionings by the text encoders of toy checkpoints."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from engine.catalog.spec import Family
from engine.pipelines.stable_diffusion.conditioning import Conditioner
from engine.pipelines.stable_diffusion.loading import load_parts
from engine.prompts.embeddings import EmbeddingFile, read_embedding
from engine.prompts.plan import Pass
from engine.prompts.tokenizer import END, START, clip_tokenizer
from engine.protocol.sampling import Sampling
from tests.support.stable_diffusion import toy_checkpoint

PROMPT = "a (cat:1.3) and easynegative [red|blue] BREAK dog"


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
def test_toy_checkpoint_encodes_prompts_for_its_own_unet(family: Family, tmp_path: Path) -> None:
    parts = load_parts(toy_checkpoint(tmp_path, family))
    widths = [encoder.architecture.channels for encoder in parts.text_encoders]
    keys = ["clip_l", "clip_g"] if len(widths) == 2 else ["emb_params"]
    file = tmp_path / "easynegative.safetensors"
    mx.save_safetensors(str(file), {key: mx.ones((2, width)) for key, width in zip(keys, widths, strict=True)})
    file.chmod(0o644)
    named = Conditioner(family, parts.text_encoders, {"easynegative": EmbeddingFile(file, read_embedding(file))})
    ((_, positive),), negative = named.plan(PROMPT, "", Pass(2), Sampling()).at(1)
    assert positive.context.shape == (1, 154, parts.architecture.unet.context_channels)
    assert negative.context.shape == (1, 77, parts.architecture.unet.context_channels)
    assert np.isfinite(np.array(positive.context)).all()
    plain = Conditioner(family, parts.text_encoders)
    ((_, without),), _ = plain.plan(PROMPT, "", Pass(2), Sampling()).at(1)
    assert not np.allclose(np.array(without.context), np.array(positive.context), atol=1e-3)
    if positive.pooled is None:
        assert family in ("sd1", "sd2")
    else:
        added = parts.architecture.unet.added_channels
        assert added is not None
        assert positive.pooled.shape == (1, parts.text_encoders[-1].architecture.projection_channels)


def test_toy_checkpoint_of_sd1_encodes_as_its_text_encoder_does(tmp_path: Path) -> None:
    (encoder,) = load_parts(toy_checkpoint(tmp_path, "sd1")).text_encoders
    tokens = [START, *clip_tokenizer().encode("a photo of a cat")]
    output = encoder(mx.array([tokens + [END] * (77 - len(tokens))]))
    found = Conditioner("sd1", [encoder]).encode("a photo of a cat")
    np.testing.assert_allclose(np.array(found.context), np.array(output.last), atol=1e-5)
    earlier = Conditioner("sd1", [encoder]).encode("a photo of a cat", clip_skip=2)
    np.testing.assert_allclose(
        np.array(earlier.context), np.array(encoder.normalise(output.hidden_states[-2])), atol=1e-5
    )
