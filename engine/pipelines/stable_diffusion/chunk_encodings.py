"""Chunks of prompts through the text encoders of a model, cached.

Source: A1111 1.10.1 modules/sd_hijack_clip.py `process_tokens`, `encode_with_transformers`; sd_hijack.py
`EmbeddingsWithFixes`; Stability-AI/generative-models sgm/modules/encoders/modules.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import mlx.core as mx

from engine.catalog.spec import Family
from engine.prompts.chunks import SEQUENCE_TOKENS, Chunk
from engine.prompts.embeddings import EmbeddingFile
from engine.prompts.tokenizer import END

BATCH = 8
"""Chunks that are encoded together."""
MOST_BYTES = 64 * 2**20
_PADDING_TOKENS: Mapping[Family, tuple[int, ...]] = {"sd1": (END,), "sd2": (0,), "sdxl": (END, 0), "sdxl_refiner": (0,)}
"""Token that fills a chunk, for each text encoder of a family."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TextEncoder(Protocol):
    """Text encoder of a family: `networks.clip.ClipText`."""

    architecture: Any

    def __call__(self, tokens: mx.array, embeddings: mx.array | None = None) -> Any: ...

    def embed(self, tokens: mx.array) -> mx.array: ...

    def normalise(self, hidden_state: mx.array) -> mx.array: ...


@dataclass(frozen=True, slots=True)
class ChunkEncoding:
    """Output of all text encoders for one chunk, without its weights."""

    states: tuple[mx.array, ...]
    """(77, channels) of each encoder."""
    pooled: mx.array | None
    """(channels,) of the last encoder; None for models that use none."""

    @property
    def nbytes(self) -> int:
        return sum(int(state.nbytes) for state in self.states)


class BoundedCache(Generic[K, V]):
    """Values by key, of which the least recently used are dropped above a number of bytes; the last one stays."""

    def __init__(self, size_of: Callable[[V], int], most_bytes: int = MOST_BYTES) -> None:
        self._size_of, self._most_bytes = size_of, most_bytes
        self._values: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        if (old := self._values.pop(key, None)) is not None:
            self._bytes -= self._size_of(old)
        self._values[key] = value
        self._bytes += self._size_of(value)
        while self._bytes > self._most_bytes and len(self._values) > 1:
            self._bytes -= self._size_of(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        self._values.clear()
        self._bytes = 0


class ChunkEncoder:
    """The text encoders of a model and the textual inversions that fit them."""

    def __init__(
        self, family: Family, text_encoders: Sequence[TextEncoder], embeddings: Mapping[str, EmbeddingFile]
    ) -> None:
        """`text_encoders` in the order of their outputs in the context. Embeddings of other widths are left out."""
        self.family = family
        self._encoders = tuple(zip(text_encoders, _PADDING_TOKENS[family], strict=True))
        widths = tuple(encoder.architecture.channels for encoder in text_encoders)
        self._files = {name: file for name, file in embeddings.items() if file.header.fits(widths)}
        self._vectors: dict[str, tuple[mx.array, ...]] = {}
        self._cache: BoundedCache[Hashable, ChunkEncoding] = BoundedCache(lambda encoding: encoding.nbytes)

    @property
    def vectors(self) -> dict[str, int]:
        """Number of vectors of each textual inversion that fits, by name."""
        return {name: file.header.vectors for name, file in self._files.items()}

    def forget(self) -> None:
        """Drop all encodings: the weights of the text encoders have changed."""
        self._cache.clear()

    def encode(self, chunks: Sequence[Chunk], clip_skip: int) -> list[ChunkEncoding]:
        """Encoding of each chunk. Raises: ValueError."""
        keys = [(chunk.tokens, chunk.embeddings, clip_skip if self.family == "sd1" else 1) for chunk in chunks]
        found = {key: encoding for key in dict.fromkeys(keys) if (encoding := self._cache.get(key)) is not None}
        missing = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in found}
        waiting = list(missing.items())
        for begin in range(0, len(waiting), BATCH):
            batch = waiting[begin : begin + BATCH]
            encoded = self._encode([chunk for _, chunk in batch], clip_skip)
            found |= {key: encoding for (key, _), encoding in zip(batch, encoded, strict=True)}
            for (key, _), encoding in zip(batch, encoded, strict=True):
                self._cache.put(key, encoding)
        return [found[key] for key in keys]

    def _encode(self, chunks: Sequence[Chunk], clip_skip: int) -> list[ChunkEncoding]:
        outputs = [self._run(index, chunks) for index in range(len(self._encoders))]
        states = [self._state(index, output, clip_skip) for index, output in enumerate(outputs)]
        pooled = outputs[-1].pooled if self.family in ("sdxl", "sdxl_refiner") else None
        mx.eval(states, [] if pooled is None else pooled)
        return [
            ChunkEncoding(tuple(state[row] for state in states), None if pooled is None else pooled[row])
            for row in range(len(chunks))
        ]

    def _run(self, index: int, chunks: Sequence[Chunk]) -> Any:
        """Output of one encoder for the chunks."""
        encoder, padding = self._encoders[index]
        tokens = mx.array([chunk.padded_with(padding) for chunk in chunks])
        if not any(chunk.embeddings for chunk in chunks):
            return encoder(tokens)
        embedded = encoder.embed(tokens)
        for row, chunk in enumerate(chunks):
            for used in chunk.embeddings:
                vectors = self._vectors_of(used.name)[index].astype(embedded.dtype)
                end = min(used.position + vectors.shape[0], SEQUENCE_TOKENS)
                embedded[row, used.position : end] = vectors[: end - used.position]
        return encoder(tokens, embedded)

    def _state(self, index: int, output: Any, clip_skip: int) -> mx.array:
        """What the UNet reads of an encoder's output, (B, 77, channels)."""
        if self.family == "sd1":
            if clip_skip == 1:
                return output.last
            states = output.hidden_states
            if not 1 <= clip_skip < len(states):
                raise ValueError(f"clip_skip must be 1 to {len(states) - 1} for this model.")
            return self._encoders[index][0].normalise(states[-clip_skip])
        return output.last if self.family == "sd2" else output.hidden_states[-2]

    def _vectors_of(self, name: str) -> tuple[mx.array, ...]:
        """(vectors, channels) for each encoder."""
        if name not in self._vectors:
            file = self._files[name]
            arrays: Any = mx.load(str(file.path), format="safetensors")
            self._vectors[name] = tuple(arrays[key].reshape(-1, width) for key, width in file.header.tensors)
        return self._vectors[name]
