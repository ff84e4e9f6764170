"""A diffusers folder that the engine writes: the names of its files, and its configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.catalog.spec import Family
from engine.checkpoints.architecture import Architecture, ClipArchitecture, UNetArchitecture, VaeArchitecture
from engine.checkpoints.description import QUANTISED, text_encoder_names
from engine.checkpoints.folders import INDEX
from engine.checkpoints.kinds import Prediction

_PIPELINES: Mapping[Family, tuple[str, str]] = {
    "sd1": ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"),
    "sd2": ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"),
    "sdxl": ("StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline"),
    "sdxl_refiner": ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
}
"""Names of diffusers' pipelines, without and with nine input channels."""
_TEXT_ENCODER = "text_encoder"


@dataclass(frozen=True, slots=True)
class SavedFolder:
    """Folder of a checkpoint with these networks."""

    folder: Path
    family: Family
    architecture: Architecture

    def weights(self, name: str) -> Path:
        """File of the weights of a network, by its name in diffusers."""
        stem = "model" if name.startswith(_TEXT_ENCODER) else "diffusion_pytorch_model"
        return self.folder / name / f"{stem}.safetensors"

    def metadata(self, bits: int | None) -> dict[str, str]:
        """Metadata of such a file. `bits`: to which it is quantised."""
        return {"format": "pt"} | ({QUANTISED: str(bits)} if bits is not None else {})

    def write_configs(self, prediction: Prediction, scale_factor: float, *, zero_terminal_snr: bool) -> None:
        """Write all configurations, with the folders that they are in. Raises: OSError."""
        encoders = dict(zip(text_encoder_names(self.family), self.architecture.text_encoders, strict=True))
        configs = {
            "unet/config.json": _unet(self.architecture.unet),
            **{f"{name}/config.json": _text_encoder(encoder) for name, encoder in encoders.items()},
            "scheduler/scheduler_config.json": _scheduler(prediction, zero_terminal_snr),
            INDEX: self._index(),
        }
        if self.architecture.vae is not None:
            configs["vae/config.json"] = _vae(self.architecture.vae, scale_factor)
        for name, config in configs.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(config, indent=2), encoding="utf-8")

    def _index(self) -> dict[str, Any]:
        encoders = text_encoder_names(self.family)
        is_xl = len(encoders) > 1 or encoders != (_TEXT_ENCODER,)
        classes = {_TEXT_ENCODER: "CLIPTextModel", f"{_TEXT_ENCODER}_2": "CLIPTextModelWithProjection"}
        stated = {name: ["transformers", kind] if name in encoders else [None, None] for name, kind in classes.items()}
        return {
            "_class_name": _PIPELINES[self.family][self.architecture.unet.in_channels == 9],
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            **{name: stated[name] for name in (stated if is_xl else encoders)},
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"] if self.architecture.vae is not None else [None, None],
        }


def _unet(unet: UNetArchitecture) -> dict[str, Any]:
    down = [any(level.depths) for level in unet.down]
    up = [any(level.depths) for level in unet.up]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": unet.added_channels,
    }
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "block_out_channels": [level.channels for level in unet.down],
        "down_block_types": ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in down],
        "mid_block_type": _middle_type(unet),
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in up],
        "layers_per_block": [len(level.depths) for level in unet.down],
        "transformer_layers_per_block": [_depths(level.depths) for level in unet.down],
        "reverse_transformer_layers_per_block": [_depths(level.depths) for level in unet.up],
        "attention_head_dim": [level.heads for level in unet.down],
        "cross_attention_dim": unet.context_channels,
        "use_linear_projection": unet.linear_projection,
        "norm_num_groups": unet.groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        **(added if unet.added_channels is not None else {}),
    }


def _middle_type(unet: UNetArchitecture) -> str | None:
    if unet.middle.resnets == 0:
        return None
    return "UNetMidBlock2DCrossAttn" if unet.middle.depth else "UNetMidBlock2D"


def _depths(depths: tuple[int, ...]) -> int | list[int]:
    """One number where all are the same; 1 where there is no attention: diffusers has no 0."""
    depths = tuple(depth or 1 for depth in depths)
    return depths[0] if len(set(depths)) == 1 else list(depths)


def _text_encoder(encoder: ClipArchitecture) -> dict[str, Any]:
    is_projected = encoder.projection_channels is not None
    return {
        "architectures": ["CLIPTextModelWithProjection" if is_projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": encoder.vocabulary,
        "max_position_embeddings": encoder.positions,
        "hidden_size": encoder.channels,
        "intermediate_size": encoder.feed_forward_channels,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "hidden_act": encoder.activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": encoder.projection_channels if is_projected else encoder.channels,
    }


def _vae(vae: VaeArchitecture, scale_factor: float) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": vae.latent_channels,
        "block_out_channels": list(vae.channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(vae.channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(vae.channels),
        "layers_per_block": vae.encoder_resnets,
        "norm_num_groups": vae.groups,
        "act_fn": "silu",
        "scaling_factor": scale_factor,
    }


def _scheduler(prediction: Prediction, zero_terminal_snr: bool) -> dict[str, Any]:
    return {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": zero_terminal_snr,
    }
