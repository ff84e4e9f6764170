"""What single changes gain on the embedded model, against mflux and MLX as they are: python -m benchmarks.steps --tried

Each change is made and undone in one process, image by image, with the prompt encoded before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from mflux.models.flux.model.flux_transformer.common.attention_utils import AttentionUtils
from mflux.models.flux2.model.flux2_transformer.feed_forward import Flux2SwiGLU
from mflux.models.flux2.model.flux2_transformer.pos_embed import Flux2PosEmbed
from mflux.models.flux2.model.flux2_transformer.single_transformer_block import Flux2SingleTransformerBlock
from mflux.models.flux2.model.flux2_transformer.transformer_block import Flux2TransformerBlock
from mlx import nn

from engine.catalog import EMBEDDED_PATH
from engine.embedded.style import style_numbers, with_style
from engine.pipelines import flux2_tiny
from engine.pipelines.cpu import conv, silu

Change = Callable[[], AbstractContextManager[Any]]
STEPS = 4
put = mock.patch.object


@contextmanager
def together(*changes: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        yield


def faster_silu() -> AbstractContextManager[Any]:
    def gated(_: Any, x: mx.array) -> mx.array:
        gate, value = mx.split(x, 2, axis=-1)
        return silu.silu(gate) * value

    return together(put(nn, "silu", silu.silu), put(Flux2SwiGLU, "__call__", gated))


def faster_convolution() -> AbstractContextManager[Any]:
    return put(mx, "conv2d", conv.conv2d)


def constant_scale() -> AbstractContextManager[Any]:
    """The scale of attention is an array that each block evaluates."""
    scales: dict[int, float] = {}

    def attend(query: mx.array, key: mx.array, value: mx.array, batch_size: int, num_heads: int, head_dim: int) -> Any:
        if head_dim not in scales:
            scales[head_dim] = float(np.asarray(1 / mx.sqrt(mx.array(head_dim))))
        mixed = mx.fast.scaled_dot_product_attention(query, key, value, scale=scales[head_dim])
        return mx.reshape(mx.transpose(mixed, (0, 2, 1, 3)), (batch_size, -1, num_heads * head_dim))

    return put(AttentionUtils, "compute_attention", staticmethod(attend))


def contiguous_rotation() -> AbstractContextManager[Any]:
    """The rotary embedding without strided reads."""

    def rotate(query: mx.array, key: mx.array, cos: mx.array, sin: mx.array) -> tuple[mx.array, mx.array]:
        both_cos = mx.repeat(cos, 2, axis=-1)
        both_sin = mx.stack([-sin, sin], axis=-1).reshape(both_cos.shape)

        def mix(x: mx.array) -> mx.array:
            turned = x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
            return x * both_cos + turned * both_sin

        return mix(query), mix(key)

    return put(AttentionUtils, "apply_rope_bshd", staticmethod(rotate))


def constant_rotation() -> AbstractContextManager[Any]:
    """The tables of the rotary embedding, computed once an image."""
    tables: dict[int, tuple[mx.array, Any]] = {}
    compute = Flux2PosEmbed.__call__

    def look_up(self: Any, ids: mx.array) -> Any:
        if id(ids) not in tables or tables[id(ids)][0] is not ids:
            tables[id(ids)] = ids, compute(self, ids)
            mx.eval(tables[id(ids)][1])
        return tables[id(ids)][1]

    return put(Flux2PosEmbed, "__call__", look_up)


def evaluation_by_block() -> AbstractContextManager[Any]:
    """mx.async_eval after each block, so that MLX computes while Python builds the rest of the step."""

    def begun(block: Any) -> AbstractContextManager[Any]:
        compute = block.__call__

        def call(*given: Any, **named: Any) -> Any:
            result = compute(*given, **named)
            mx.async_eval(result)  # type: ignore[no-untyped-call]
            return result

        return put(block, "__call__", call)

    return together(constant_scale(), begun(Flux2SingleTransformerBlock), begun(Flux2TransformerBlock))


CHANGES: dict[str, Change] = {
    "SiLU by NumPy": faster_silu,
    "convolution in chunks": faster_convolution,
    "both": lambda: together(faster_silu(), faster_convolution()),
    "attention scale as a number": constant_scale,
    "rotation without strides": contiguous_rotation,
    "rotary tables cached": constant_rotation,
    "async_eval by block": evaluation_by_block,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    conv.replace_conv2d()
    mx.conv2d = conv._conv2d
    pipeline = flux2_tiny.build(EMBEDDED_PATH)
    encode, encodings = pipeline._encode_prompt_pair, {}

    def encode_once(**named: Any) -> Any:
        if named["prompt"] not in encodings:
            encodings[named["prompt"]] = encode(**named)
            mx.eval(encodings[named["prompt"]][0])
        return encodings[named["prompt"]]

    pipeline._encode_prompt_pair = encode_once
    prompt = with_style("a red circle on a blue background", style_numbers(3))
    for px in asked.px:

        def draw(seed: int, change: Change, px: int = px) -> tuple[float, Any]:
            with change():
                began = time.perf_counter()
                made = pipeline.generate_image(
                    seed=seed, prompt=prompt, num_inference_steps=STEPS, width=px, height=px, guidance=1.0
                )
                return time.perf_counter() - began, np.asarray(made.image).astype(int)

        compare(px, asked.rounds, draw)


def compare(px: int, rounds: int, draw: Callable[[int, Change], tuple[float, Any]]) -> None:
    changes: dict[str, Change] = {"as it is": nullcontext, **CHANGES}
    times: dict[str, list[float]] = {name: [] for name in changes}
    off = dict.fromkeys(changes, 0)
    for change in changes.values():
        draw(1, change)
    for number in range(rounds):
        images = {}
        for name in sorted(changes, reverse=bool(number % 2)):
            seconds, images[name] = draw(number, changes[name])
            times[name].append(seconds)
        for name in changes:
            off[name] = max(off[name], int(abs(images[name] - images["as it is"]).max()))
    usual = times["as it is"]
    print(f"{px} px: {statistics.median(usual):.3f} s as it is", flush=True)
    for name in CHANGES:
        ratios = [one / other for one, other in zip(times[name], usual, strict=True)]
        print(f"  {name:28} {statistics.median(ratios):.3f}  pixels differ by {off[name]}", flush=True)


if __name__ == "__main__":
    main()
