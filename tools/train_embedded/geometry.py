"""Dimensions of the embedded model; everything else reads them from here or from the exported config files."""

from math import exp

NATIVE_PX = 128
CELL_PX = 8
LATENT_CHANNELS = 32
LATENT_GRID = NATIVE_PX // (2 * CELL_PX)
LATENT_TOKENS = LATENT_GRID * LATENT_GRID
TEXT_TOKENS = 24
TEXT_LAYERS = (1, 2, 3)
VOCABULARY = 1536

TRANSFORMER = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 2,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 6,
    "joint_attention_dim": 384,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (8, 8, 8, 8),
    "rope_theta": 2000,
    "guidance_embeds": False,
}

TEXT_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "attention_bias": False,
    "tie_word_embeddings": True,
}

VAE = {
    "block_out_channels": (32, 32, 64, 96),
    "layers_per_block": 1,
    "latent_channels": 32,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "sample_size": NATIVE_PX,
}


def scheduler_sigmas(steps: int, tokens: int = LATENT_TOKENS) -> list[float]:
    """Noise levels of the FLUX.2 flow-matching schedule for a number of steps, without the final zero."""
    at_200 = 0.00016927 * tokens + 0.45666666
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (at_200 - at_10) / 190.0
    shift = exp(slope * steps + at_200 - 200.0 * slope)
    times = [1.0 - i * (1.0 - 1.0 / steps) / max(steps - 1, 1) for i in range(steps)]
    return [shift / (shift + (1.0 / t - 1.0)) for t in times]
