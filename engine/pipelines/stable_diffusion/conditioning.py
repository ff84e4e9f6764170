"""Conditioning of the UNet by prompts, step by step, as A1111 makes it.

Each chunk of a prompt is encoded by itself and the outputs follow each other. Weights multiply the text encoders'
output; "Original" then restores the mean that a chunk's output had before, over all texts that the prompt means at its
steps. The pooled output is that of the first chunk. SDXL's empty negative prompt is all zeros.

Source: A1111 1.10.1 modules/sd_hijack_clip.py, sd_emphasis.py, sd_models_xl.py, prompt_parser.py, and
sd_samplers_cfg_denoiser.py `pad_cond_uncond`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from engine.catalog.spec import Family
from engine.pipelines.stable_diffusion.chunk_encodings import (
    BoundedCache,
    ChunkEncoder,
    ChunkEncoding,
    TextEncoder,
)
from engine.prompts.chunks import Chunk
from engine.prompts.embeddings import EmbeddingFile
from engine.prompts.names import EmbeddingNames
from engine.prompts.plan import Pass, PlannedPrompt, PlannedPrompts, chunk_options, plan_prompts, plan_text
from engine.protocol.sampling import Emphasis, Sampling

AESTHETIC_SCORE = 6.0
NEGATIVE_AESTHETIC_SCORE = 2.5
_ZERO_NEGATIVES: frozenset[Family] = frozenset({"sdxl", "sdxl_refiner"})
"""Families whose empty negative prompt is all zeros."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """One prompt as the UNet reads it."""

    context: mx.array
    """(1, 77 x chunks, channels) for cross-attention; the channels of all text encoders follow each other."""
    pooled: mx.array | None
    """(1, channels) of the last text encoder; None for models that use none."""

    def with_rows(self, rows: int) -> Conditioning:
        """The context with its last row repeated up to a number of rows."""
        missing = rows - self.context.shape[1]
        if missing <= 0:
            return self
        repeated = mx.repeat(self.context[:, -1:], missing, axis=1)
        return replace(self, context=mx.concatenate([self.context, repeated], axis=1))

    def followed_by(self, chunk: mx.array, times: int) -> Conditioning:
        """The context with the context of a chunk, (1, 77, channels), repeated after it."""
        return replace(self, context=mx.concatenate([self.context, *[chunk] * times], axis=1)) if times > 0 else self

    def as_zeros(self) -> Conditioning:
        """Zeros of the same shapes."""
        return Conditioning(mx.zeros_like(self.context), None if self.pooled is None else mx.zeros_like(self.pooled))

    @property
    def nbytes(self) -> int:
        return int(self.context.nbytes)


StepConditioning = tuple[Sequence[tuple[float, Conditioning]], Conditioning]
"""Weight and conditioning of each prompt that is joined by AND, all of one shape, and the negative conditioning."""


class Conditioner:
    """The text encoders of a loaded model. Their encodings stay cached between prompts, images and jobs."""

    def __init__(
        self,
        family: Family,
        text_encoders: Sequence[TextEncoder],
        embeddings: Mapping[str, EmbeddingFile] | None = None,
    ) -> None:
        """`embeddings`: textual inversions that the prompts may name; those for other models are left out."""
        self.family = family
        self._chunks = ChunkEncoder(family, text_encoders, embeddings or {})
        self._names = EmbeddingNames(self._chunks.vectors)

    def forget(self) -> None:
        """Drop all encodings: the weights of the text encoders have changed."""
        self._chunks.forget()

    def encode(self, text: str, *, clip_skip: int = 1, emphasis: Emphasis = "Original") -> Conditioning:
        """Conditioning of a text, without editing and AND. Raises: PromptError, ValueError."""
        sampling = Sampling(clip_skip=clip_skip, emphasis=emphasis)
        planned = plan_text(text, chunk_options(sampling, self._names))
        return _PromptConditioning(self._chunks, planned, sampling).conditioning(0)

    def plan(self, prompt: str, negative_prompt: str, steps: Pass, sampling: Sampling) -> PromptPlan:
        """Both prompts for each step of a pass. Raises: engine.prompts.errors.PromptError."""
        options = chunk_options(sampling, self._names)
        planned = plan_prompts(prompt, negative_prompt, steps, options)
        return PromptPlan(self._chunks, planned, plan_text("", options), sampling)


class PromptPlan:
    """Conditionings of two prompts at each step. Steps count the evaluations of the network from 0."""

    def __init__(self, chunks: ChunkEncoder, prompts: PlannedPrompts, empty: PlannedPrompt, sampling: Sampling) -> None:
        self.embeddings = prompts.embeddings()
        """Names of the textual inversions that the prompts use."""
        self._pads = sampling.pad_cond_uncond
        self._zero_negative = chunks.family in _ZERO_NEGATIVES and prompts.negative.is_empty
        self._prompts = [_PromptConditioning(chunks, planned, sampling) for planned in prompts.prompts]
        self._negative = _PromptConditioning(chunks, prompts.negative, sampling)
        self._empty = _PromptConditioning(chunks, empty, sampling)
        self._steps: BoundedCache[tuple[int, ...], StepConditioning] = BoundedCache(_bytes_of)

    def at(self, step: int) -> StepConditioning:
        """Conditionings at a step; the same object as long as no prompt changes. Raises: ValueError."""
        key = tuple(prompt.planned.text_at(step) for prompt in (*self._prompts, self._negative))
        found = self._steps.get(key)
        if found is None:
            found = self._made(key)
            self._steps.put(key, found)
        return found

    def _made(self, texts: tuple[int, ...]) -> StepConditioning:
        positive = [prompt.conditioning(text) for prompt, text in zip(self._prompts, texts, strict=False)]
        rows = max(conditioning.context.shape[1] for conditioning in positive)
        positive = [conditioning.with_rows(rows) for conditioning in positive]
        negative = self._negative.conditioning(texts[-1])
        if self._zero_negative:
            negative = negative.as_zeros()
        if self._pads:
            empty = self._empty.conditioning(0).context
            missing = (rows - negative.context.shape[1]) // empty.shape[1]
            negative = negative.followed_by(empty, missing)
            positive = [conditioning.followed_by(empty, -missing) for conditioning in positive]
        weights = (prompt.planned.weight for prompt in self._prompts)
        return list(zip(weights, positive, strict=True)), negative


class _PromptConditioning:
    """Conditionings of one planned prompt."""

    def __init__(self, chunks: ChunkEncoder, planned: PlannedPrompt, sampling: Sampling) -> None:
        self.planned = planned
        self._chunks = chunks
        self._clip_skip = sampling.clip_skip
        weighs = sampling.emphasis in ("Original", "No norm")
        self._weighted_positions = _weighted_positions(planned) if weighs else frozenset()
        self._restores_mean = sampling.emphasis == "Original"
        self._factors: dict[int, list[mx.array]] = {}

    def conditioning(self, text: int) -> Conditioning:
        chunks = self.planned.chunks[text]
        encodings = self._chunks.encode(chunks, self._clip_skip)
        contexts = [
            self._weighted(position, chunk, encoding)
            for position, (chunk, encoding) in enumerate(zip(chunks, encodings, strict=True))
        ]
        context = mx.concatenate(contexts)[None]
        pooled = encodings[0].pooled
        found = Conditioning(context, None if pooled is None else pooled[None])
        mx.eval(found.context)
        return found

    def _weighted(self, position: int, chunk: Chunk, encoding: ChunkEncoding) -> mx.array:
        """(77, channels) of a chunk, the chunk at this position of its text."""
        if position not in self._weighted_positions:
            return mx.concatenate(list(encoding.states), axis=-1)
        factors = self._mean_factors(position) if self._restores_mean else [mx.array(1.0)] * len(encoding.states)
        weights = mx.array(chunk.weights)[:, None]
        states = [
            (state.astype(mx.float32) * weights * factor).astype(state.dtype)
            for state, factor in zip(encoding.states, factors, strict=True)
        ]
        return mx.concatenate(states, axis=-1)

    def _mean_factors(self, position: int) -> list[mx.array]:
        """For each encoder, the mean of the chunks at this position by their mean with weights.

        A1111 encodes the texts of a schedule together, one for each entry, and takes the means over all of them.
        """
        if position not in self._factors:
            chunks = [own[position] for own in self.planned.chunks]
            before, after = [], []
            for count, chunk, encoding in zip(
                self.planned.counts, chunks, self._chunks.encode(chunks, self._clip_skip), strict=True
            ):
                weights = mx.array(chunk.weights)[:, None]
                states = [state.astype(mx.float32) for state in encoding.states]
                before.append(mx.stack([count * mx.mean(state) for state in states]))
                after.append(mx.stack([count * mx.mean(state * weights) for state in states]))
            self._factors[position] = list(mx.sum(mx.stack(before), axis=0) / mx.sum(mx.stack(after), axis=0))
        return self._factors[position]


def time_ids(family: Family, width_px: int, height_px: int, *, is_negative: bool = False) -> tuple[float, ...]:
    """Numbers about the image that SDXL's UNet takes besides the pooled text; none for SD 1 and 2.

    SDXL: height, width, top and left of the crop, target height and width. The refiner has an aesthetic score instead
    of the target's size, and another one with the negative prompt.
    """
    if family == "sdxl":
        return (height_px, width_px, 0, 0, height_px, width_px)
    if family == "sdxl_refiner":
        return (height_px, width_px, 0, 0, NEGATIVE_AESTHETIC_SCORE if is_negative else AESTHETIC_SCORE)
    return ()


def _weighted_positions(planned: PlannedPrompt) -> frozenset[int]:
    """Positions of chunks of which some text's has a weight other than 1."""
    return frozenset(
        position
        for chunks in planned.chunks
        for position, chunk in enumerate(chunks)
        if any(weight != 1.0 for weight in chunk.weights)
    )


def _bytes_of(conditioning: StepConditioning) -> int:
    prompts, negative = conditioning
    return sum(prompt.nbytes for _, prompt in prompts) + negative.nbytes
