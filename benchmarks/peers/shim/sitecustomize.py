"""Builds mflux's FLUX.2 Klein with the sizes of a small checkpoint, in every server alike; Python imports it at start.

mflux has the sizes of FLUX.2 Klein in its code. When its initialiser is imported, the sizes are replaced with those in
the config files of the checkpoint that PEERS_CHECKPOINT names; all else is mflux's own, in whichever version. On a CPU
everything is computed in float32: MLX has no fast bfloat16 there. Modules that PEERS_EMPTY names are empty where they
are not installed: an old mflux imports torch, and uses it only for other models.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INITIALIZER = "mflux.models.flux2.flux2_initializer"
TEXT_LAYERS = (1, 2, 3)
TRANSFORMER_KEYS = (
    "patch_size",
    "in_channels",
    "num_layers",
    "num_single_layers",
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "timestep_guidance_channels",
    "mlp_ratio",
    "rope_theta",
    "guidance_embeds",
)
TEXT_ENCODER_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "head_dim",
    "attention_bias",
)
VAE_KEYS = ("layers_per_block", "norm_num_groups", "mid_block_add_attention")


def config_of(part: str) -> dict[str, Any]:
    file = Path(os.environ["PEERS_CHECKPOINT"]) / part / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def resize(initializer: Any) -> None:
    """Replace in mflux's module what builds the parts of a model."""
    import mlx.core as mx

    if mx.default_device() == mx.cpu:
        initializer.ModelConfig.precision = mx.float32
    build = initializer.Flux2Initializer._init_models

    class Encoder(initializer.Qwen3TextEncoder):  # type: ignore[misc]
        def get_prompt_embeds(self, *arguments: Any, **named: Any) -> Any:
            return super().get_prompt_embeds(*arguments[:2], **{**named, "hidden_state_layers": TEXT_LAYERS})

    def small(model: Any) -> None:
        from mflux.models.flux2.model.flux2_vae.decoder.decoder import Flux2Decoder
        from mflux.models.flux2.model.flux2_vae.encoder.encoder import Flux2Encoder

        transformer, text_encoder, vae = map(config_of, ("transformer", "text_encoder", "vae"))
        rope_theta = text_encoder.get("rope_theta") or text_encoder["rope_parameters"]["rope_theta"]
        axes = tuple(transformer["axes_dims_rope"])
        model.model_config.transformer_overrides = {
            **{key: transformer[key] for key in TRANSFORMER_KEYS},
            "axes_dims_rope": axes,
        }
        model.model_config.text_encoder_overrides = {
            **{key: text_encoder[key] for key in TEXT_ENCODER_KEYS},
            "rope_theta": rope_theta,
        }
        build(model)
        sizes = {key: vae[key] for key in VAE_KEYS}
        sizes["block_out_channels"] = tuple(vae["block_out_channels"])
        model.vae.encoder, model.vae.decoder = Flux2Encoder(**sizes), Flux2Decoder(**sizes)
        model.text_encoder.__class__ = Encoder

    initializer.Flux2Initializer._init_models = staticmethod(small)


class Resizing(importlib.abc.Loader):
    """The module's own loader, and then `resize`."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        self._loader.exec_module(module)
        resize(module)


class Empty(importlib.abc.Loader):
    """A module in which every name is there, and nothing works."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []
        module.__getattr__ = lambda name: missing(module.__name__, name)  # type: ignore[method-assign]


def missing(module: str, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {"__module__": module})


class Finder(importlib.abc.MetaPathFinder):
    """Finds the initialiser, and the modules that are to be empty."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == INITIALIZER:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None and spec.loader is not None:
                spec.loader = Resizing(spec.loader)
            return spec
        if name in EMPTY:
            return importlib.machinery.ModuleSpec(name, Empty(), is_package=True)
        return None


EMPTY = frozenset(filter(None, os.environ.get("PEERS_EMPTY", "").split(",")))
if "PEERS_CHECKPOINT" in os.environ:
    sys.meta_path.insert(0, Finder())
