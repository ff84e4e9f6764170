"""CLIP's text encoder, of any sizes: that of OpenAI and those of OpenCLIP.

Sources: transformers models/clip/modeling_clip.py; mlfoundations/open_clip src/open_clip/transformer.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from engine.checkpoints.architecture import Activation, ClipArchitecture


@dataclass(frozen=True)
class ClipOutput:
    """Output of a text encoder."""

    hidden_states: list[mx.array]
    """The embedded tokens, then the output of each layer: (B, n, channels), without the final norm."""
    last: mx.array
    """Output of the last layer after the final norm."""
    pooled: mx.array
    """(B, channels or projection channels): `last` at the first end token, projected where the encoder projects."""


class ClipText(nn.Module):
    """Text encoder. `dtype` is that of its parameters, in which it computes.

    SD 1 reads a layer after the final norm (`normalise`); SD 2's last layer here is the one that its UNet reads, after
    the norm; SDXL reads the last layer but one of both encoders without the norm.
    """

    def __init__(self, architecture: ClipArchitecture, dtype: mx.Dtype = mx.float32) -> None:
        super().__init__()
        self.architecture, self.dtype = architecture, dtype
        self.text_model = TextModel(architecture)
        if architecture.projection_channels is not None:
            self.text_projection = nn.Linear(architecture.channels, architecture.projection_channels, bias=False)

    def __call__(self, tokens: mx.array, embeddings: mx.array | None = None) -> ClipOutput:
        """Encode `tokens` (B, n), whole numbers.

        `embeddings` (B, n, channels) are used instead of those of the tokens: a caller takes them from `embed` and
        replaces some. The end token, the one with the largest number, is found in `tokens` nevertheless.
        """
        x = self.embed(tokens) if embeddings is None else embeddings.astype(self.dtype)
        hidden_states = self.text_model(x)
        last = self.normalise(hidden_states[-1])
        ends = mx.argmax(tokens, axis=1)
        pooled = mx.take_along_axis(last, ends[:, None, None], axis=1)[:, 0]
        return ClipOutput(hidden_states, last, self.text_projection(pooled) if "text_projection" in self else pooled)

    def embed(self, tokens: mx.array) -> mx.array:
        """Embeddings (B, n, channels) of the tokens (B, n), without their positions."""
        return self.text_model.embeddings.token_embedding(tokens)

    def normalise(self, hidden_state: mx.array) -> mx.array:
        """The final norm of a layer's output."""
        return self.text_model.final_layer_norm(hidden_state)


class TextModel(nn.Module):
    """Embeddings, layers, and the final norm."""

    def __init__(self, architecture: ClipArchitecture) -> None:
        super().__init__()
        self.embeddings = Embeddings(architecture)
        self.encoder = Encoder(architecture)
        self.final_layer_norm = nn.LayerNorm(architecture.channels)

    def __call__(self, x: mx.array) -> list[mx.array]:
        """All hidden states of embedded tokens (B, n, channels)."""
        positions = self.embeddings.position_embedding(mx.arange(x.shape[1]))
        hidden_states = [x + positions]
        for layer in self.encoder.layers:
            hidden_states.append(layer(hidden_states[-1]))
        return hidden_states


class Embeddings(nn.Module):
    """Tables of tokens and positions."""

    def __init__(self, architecture: ClipArchitecture) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(architecture.vocabulary, architecture.channels)
        self.position_embedding = nn.Embedding(architecture.positions, architecture.channels)


class Encoder(nn.Module):
    """The layers, in their order."""

    def __init__(self, architecture: ClipArchitecture) -> None:
        super().__init__()
        self.layers = [EncoderLayer(architecture) for _ in range(architecture.layers)]


class EncoderLayer(nn.Module):
    """Attention of each token to itself and those before it, then feed-forward."""

    def __init__(self, architecture: ClipArchitecture) -> None:
        super().__init__()
        channels = architecture.channels
        self.layer_norm1 = nn.LayerNorm(channels)
        self.self_attn = SelfAttention(channels, architecture.heads)
        self.layer_norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, architecture.feed_forward_channels, architecture.activation)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SelfAttention(nn.Module):
    """Causal attention."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        self.heads = heads

    def __call__(self, x: mx.array) -> mx.array:
        batch, count, channels = x.shape
        split = batch, count, self.heads, channels // self.heads
        q, k, v = (proj(x).reshape(split).transpose(0, 2, 1, 3) for proj in (self.q_proj, self.k_proj, self.v_proj))
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=split[-1] ** -0.5, mask="causal")
        return self.out_proj(y.transpose(0, 2, 1, 3).reshape(x.shape))


class FeedForward(nn.Module):
    """Two linear layers."""

    def __init__(self, channels: int, inner_channels: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, inner_channels)
        self.fc2 = nn.Linear(inner_channels, channels)
        self.activation = activation

    def __call__(self, x: mx.array) -> mx.array:
        y = self.fc1(x)
        return self.fc2(y * mx.sigmoid(1.702 * y) if self.activation == "quick_gelu" else nn.gelu(y))
