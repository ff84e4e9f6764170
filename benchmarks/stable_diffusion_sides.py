"""Part of `stable_diffusion`: networks of one program with random weights, which do what a line of stdin says.

Each runs in a process of its own, with the Python and the packages of that program; so nothing of this repository is
imported before it is known to be there. A line is {"kind": "text" | "step" | "decode" | "image", "steps": n}, the
answer {"seconds": s, "processor": s, "peak": bytes}: as MLX counts, for diffusers the largest resident memory of the
process.
"""

from __future__ import annotations

import json
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

LATENT_PX, TOKENS, GUIDANCE = 8, 77, 7.5
FIRST_SIGMA, LAST_SIGMA = 14.6146, 0.0292


@dataclass(frozen=True)
class Sizes:
    """Sizes of SD 1's networks. `context` is the width of the text encoder, whose heads are 64 wide."""

    channels: tuple[int, ...]
    context: int
    vae: tuple[int, ...]
    px: int
    dtype: str
    heads: int = 8
    layers: int = 12


class Side(Protocol):
    """The networks of one program. All images are of one prompt and a negative one: batches of two."""

    def text(self) -> Any:
        """Encode two texts of 77 tokens."""

    def step(self) -> Any:
        """One evaluation of the UNet."""

    def decode(self) -> Any:
        """Decode latents of one image."""

    def image(self, steps: int) -> Any:
        """A whole image: text, Euler's steps, decoding."""

    def peak(self) -> int:
        """Bytes at the peak since the last call."""

    def parameters(self) -> int:
        """Parameters of all networks, which must be as many in each program."""


def noise_levels(steps: int) -> list[float]:
    """Even in their logarithm, then 0: the time of a step does not depend on them."""
    ratio = (LAST_SIGMA / FIRST_SIGMA) ** (1 / max(steps - 1, 1))
    return [*(FIRST_SIGMA * ratio**number for number in range(steps)), 0.0]


class _Mlx(ABC):
    """What both programs of MLX have in common."""

    unet: Any
    encoder: Any
    vae: Any

    def __init__(self, sizes: Sizes) -> None:
        import mlx.core as mx

        self.mx, self.side = mx, sizes.px // LATENT_PX
        self.dtype = getattr(mx, sizes.dtype)
        mx.random.seed(0)
        self.latents = mx.random.normal((1, self.side, self.side, 4))
        self.tokens = mx.random.randint(0, 49000, (2, TOKENS))
        self.encoded = mx.random.normal((2, TOKENS, sizes.context)).astype(self.dtype)

    def network(self, made: Any, dtype: Any = None) -> Any:
        """The network with its random weights in memory."""
        wanted = self.dtype if dtype is None else dtype
        made.apply(lambda array: array.astype(wanted))
        self.mx.eval(made.parameters())
        return made

    def text(self) -> Any:
        encoded = self.encode()
        self.mx.eval(encoded)
        return encoded

    def step(self) -> Any:
        made = self.predict(self.latents, 500.0, self.encoded)
        self.mx.eval(made)
        return made

    def decode(self) -> Any:
        pixels = self.pixels(self.latents)
        self.mx.eval(pixels)
        return pixels

    def image(self, steps: int) -> Any:
        encoded, sigmas = self.text(), noise_levels(steps)
        x = self.latents * sigmas[0]
        for number, (sigma, following) in enumerate(pairwise(sigmas)):
            made = self.predict(x / (sigma**2 + 1) ** 0.5, 999.0 * (1 - number / steps), encoded)
            x = x + (following - sigma) * (made[1:] + GUIDANCE * (made[:1] - made[1:]))
            self.mx.eval(x)
        pixels = self.pixels(x)
        self.mx.eval(pixels)
        return pixels

    def peak(self) -> int:
        peak = self.mx.get_peak_memory()
        self.mx.reset_peak_memory()
        return int(peak)

    def parameters(self) -> int:
        from mlx.utils import tree_flatten

        networks = (self.unet, self.encoder, self.vae)
        return sum(array.size for network in networks for _, array in tree_flatten(network.parameters()))

    @abstractmethod
    def encode(self) -> Any:
        """Encoded prompt and negative prompt."""

    @abstractmethod
    def predict(self, latents: Any, timestep: float, encoded: Any) -> Any:
        """Output of the UNet for both."""

    @abstractmethod
    def pixels(self, latents: Any) -> Any:
        """Image of latents."""


class Ours(_Mlx):
    """The engine's networks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        from engine.checkpoints.architecture import ClipArchitecture, Level, Middle, UNetArchitecture, VaeArchitecture
        from engine.pipelines.stable_diffusion.networks.clip import ClipText
        from engine.pipelines.stable_diffusion.networks.unet import UNet
        from engine.pipelines.stable_diffusion.networks.vae import Vae

        last = len(sizes.channels) - 1

        def level(number: int, resnets: int, edge: int) -> Level:
            depth = 1 if number < last else 0
            return Level(sizes.channels[number], sizes.heads, (depth,) * resnets, resamples=number != edge)

        unet = UNetArchitecture(
            in_channels=4,
            out_channels=4,
            time_channels=4 * sizes.channels[0],
            context_channels=sizes.context,
            added_channels=None,
            linear_projection=False,
            down=tuple(level(number, 2, last) for number in range(last + 1)),
            middle=Middle(sizes.channels[-1], sizes.heads, 2, 1),
            up=tuple(level(number, 3, 0) for number in range(last, -1, -1)),
        )
        text = ClipArchitecture(
            vocabulary=49408,
            positions=TOKENS,
            channels=sizes.context,
            layers=sizes.layers,
            heads=sizes.context // 64,
            feed_forward_channels=4 * sizes.context,
            activation="quick_gelu",
            projection_channels=None,
        )
        self.unet = self.network(UNet(unet, self.dtype))
        self.encoder = self.network(ClipText(text, self.dtype))
        self.vae = self.network(Vae(VaeArchitecture(sizes.vae, 2, 3)), self.mx.float32)

    def encode(self) -> Any:
        return self.encoder(self.tokens).last

    def predict(self, latents: Any, timestep: float, encoded: Any) -> Any:
        batch = self.mx.repeat(latents, 2, axis=0)
        return self.unet(batch, self.mx.full((2,), timestep), encoded)

    def pixels(self, latents: Any) -> Any:
        image = self.vae.decode(latents / 0.18215)
        return (self.mx.clip(image / 2 + 0.5, 0, 1) * 255).astype(self.mx.uint8)


class MlxExamples(_Mlx):
    """The folder `stable_diffusion` of ml-explore/mlx-examples, which is on the path of Python."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        from stable_diffusion.clip import CLIPTextModel  # type: ignore[import-not-found]
        from stable_diffusion.config import (  # type: ignore[import-not-found]
            AutoencoderConfig,
            CLIPTextModelConfig,
            UNetConfig,
        )
        from stable_diffusion.unet import UNetModel  # type: ignore[import-not-found]
        from stable_diffusion.vae import Autoencoder  # type: ignore[import-not-found]

        levels = len(sizes.channels)
        unet = UNetConfig(
            block_out_channels=sizes.channels,
            num_attention_heads=(sizes.heads,) * levels,
            cross_attention_dim=(sizes.context,) * levels,
            up_block_types=(*("CrossAttnUpBlock2D",) * (levels - 1), "UpBlock2D"),  # as its model_io reverses them
        )
        text = CLIPTextModelConfig(
            num_layers=sizes.layers, model_dims=sizes.context, num_heads=sizes.context // 64, max_length=TOKENS
        )
        self.unet = self.network(UNetModel(unet))
        self.encoder = self.network(CLIPTextModel(text))
        self.vae = self.network(Autoencoder(AutoencoderConfig(block_out_channels=sizes.vae)), self.mx.float32)

    def encode(self) -> Any:
        return self.encoder(self.tokens).last_hidden_state

    def predict(self, latents: Any, timestep: float, encoded: Any) -> Any:
        batch = self.mx.concatenate([latents.astype(self.dtype)] * 2, axis=0)
        time_of_both = self.mx.full((2,), timestep, dtype=self.dtype)
        return self.unet(batch, time_of_both, encoder_x=encoded)

    def pixels(self, latents: Any) -> Any:
        image = self.vae.decode(latents.astype(self.mx.float32))
        return (self.mx.clip(image / 2 + 0.5, 0, 1) * 255).astype(self.mx.uint8)


class Diffusers:
    """diffusers and transformers on PyTorch's CPU."""

    def __init__(self, sizes: Sizes) -> None:
        import torch  # type: ignore[import-not-found]
        from diffusers import AutoencoderKL, UNet2DConditionModel  # type: ignore[import-not-found]
        from transformers import CLIPTextConfig, CLIPTextModel

        torch.set_grad_enabled(False)
        torch.manual_seed(0)
        self.torch, self.side, self.dtype = torch, sizes.px // LATENT_PX, getattr(torch, sizes.dtype)
        levels = len(sizes.channels)
        unet = UNet2DConditionModel(
            block_out_channels=sizes.channels, attention_head_dim=sizes.heads, cross_attention_dim=sizes.context
        )
        text = CLIPTextConfig(
            hidden_size=sizes.context,
            intermediate_size=4 * sizes.context,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.context // 64,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=sizes.vae,
            layers_per_block=2,
            latent_channels=4,
        )
        self.unet, self.encoder = unet.to(self.dtype).eval(), CLIPTextModel(text).to(self.dtype).eval()
        self.vae = vae.eval()
        self.latents = torch.randn(1, 4, self.side, self.side)
        self.tokens = torch.randint(0, 49000, (2, TOKENS))
        self.encoded = torch.randn(2, TOKENS, sizes.context, dtype=self.dtype)

    def text(self) -> Any:
        return self.encoder(self.tokens).last_hidden_state

    def predict(self, latents: Any, timestep: float, encoded: Any) -> Any:
        return self.unet(latents.repeat(2, 1, 1, 1).to(self.dtype), timestep, encoder_hidden_states=encoded).sample

    def step(self) -> Any:
        return self.predict(self.latents, 500.0, self.encoded)

    def pixels(self, latents: Any) -> Any:
        image = self.vae.decode(latents / 0.18215).sample
        return ((image / 2 + 0.5).clamp(0, 1) * 255).to(self.torch.uint8)

    def decode(self) -> Any:
        return self.pixels(self.latents)

    def image(self, steps: int) -> Any:
        encoded, sigmas = self.text(), noise_levels(steps)
        x = self.latents * sigmas[0]
        for number, (sigma, following) in enumerate(pairwise(sigmas)):
            made = self.predict(x / (sigma**2 + 1) ** 0.5, 999.0 * (1 - number / steps), encoded).float()
            x = x + (following - sigma) * (made[1:] + GUIDANCE * (made[:1] - made[1:]))
        return self.pixels(x)

    def peak(self) -> int:
        """Largest resident memory. Linux only; elsewhere 0."""
        status = Path("/proc/self/status")
        if not status.exists():
            return 0
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return int(found[1]) * 1024 if found else 0

    def parameters(self) -> int:
        networks = (self.unet, self.encoder, self.vae)
        return sum(array.numel() for network in networks for array in network.parameters())


SIDES: dict[str, Callable[[Sizes], Side]] = {"ours": Ours, "mlx-examples": MlxExamples, "diffusers": Diffusers}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print what they like
    name = sys.argv[1]
    sizes: dict[str, Any] = json.loads(sys.argv[2])
    side = SIDES[name](Sizes(**{**sizes, "channels": tuple(sizes["channels"]), "vae": tuple(sizes["vae"])}))
    print(json.dumps({"parameters": side.parameters()}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        side.peak()
        began, used = time.perf_counter(), time.process_time()
        work = getattr(side, order["kind"])
        if order["kind"] == "image":
            work(order["steps"])
        else:
            work()
        answer = {"seconds": time.perf_counter() - began, "processor": time.process_time() - used, "peak": side.peak()}
        print(json.dumps(answer), file=answers, flush=True)


def as_argument(sizes: Sizes) -> str:
    """Sizes for the command line of a side."""
    return json.dumps(asdict(sizes))


if __name__ == "__main__":
    main()
