"""Chunks of a prompt: 75 tokens with their weights between a start and an end token, each encoded by itself.

Each part of one weight is tokenised alone. Where a chunk is full and its last comma lies close to its end, what follows
the comma begins the next chunk. A textual inversion lies within one chunk.

Source: A1111 1.10.1 modules/sd_hijack_clip.py `tokenize_line`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.prompts.attention import Part, parse_attention
from engine.prompts.errors import PromptError
from engine.prompts.names import EmbeddingNames
from engine.prompts.tokenizer import COMMA, END, START, clip_tokenizer
from engine.protocol.sampling import Emphasis

CHUNK_TOKENS = 75
SEQUENCE_TOKENS = CHUNK_TOKENS + 2
PLACEHOLDER = 0
"""Token at the place of a textual inversion's vector."""
MOST_CHUNKS = 512
"""Chunks of one text."""


@dataclass(frozen=True, slots=True)
class UsedEmbedding:
    """A textual inversion in a chunk."""

    position: int
    """Index of the token that its first vector takes, 1 to 75. Vectors that end beyond the chunk are left out."""
    name: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """77 tokens with their weights, from the start token to the end tokens that fill the chunk."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    embeddings: tuple[UsedEmbedding, ...] = ()

    def padded_with(self, token: int) -> tuple[int, ...]:
        """Its tokens with `token` after the first end token: text encoders differ in what fills a chunk."""
        count = self.tokens.index(END) + 1
        return self.tokens[:count] + (token,) * (len(self.tokens) - count)


EMPTY_CHUNK = Chunk((START, *(END,) * (CHUNK_TOKENS + 1)), (1.0,) * SEQUENCE_TOKENS)


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How texts are split into chunks."""

    names: EmbeddingNames
    emphasis: Emphasis = "Original"
    comma_padding_backtrack: int = 20
    """Tokens after a comma, 0 to 74, that move to the next chunk with it full; 0: none do."""


def split_chunks(text: str, options: ChunkOptions) -> tuple[Chunk, ...]:
    """Chunks of a prompt, at least one. Raises: PromptError."""
    literal = options.emphasis == "None"
    splitter = _Splitter(options)
    for part in [Part(text, 1.0)] if literal else parse_attention(text):
        if part.is_break:
            splitter.close()
        else:
            splitter.add(part)
    return splitter.finish()


class _Splitter:
    """Chunks that are complete, and the one that is being filled."""

    def __init__(self, options: ChunkOptions) -> None:
        self._options = options
        self._chunks: list[Chunk] = []
        self._tokens: list[int] = []
        self._weights: list[float] = []
        self._embeddings: list[UsedEmbedding] = []
        self._last_comma: int | None = None

    def add(self, part: Part) -> None:
        tokens = clip_tokenizer().encode(part.text)
        position = 0
        while position < len(tokens):
            token = tokens[position]
            if token == COMMA:
                self._last_comma = len(self._tokens)
            elif len(self._tokens) == CHUNK_TOKENS:
                self._move_what_follows_the_comma()
            if len(self._tokens) == CHUNK_TOKENS:
                self.close()
            found = self._options.names.find(tokens, position)
            if found is None:
                self._append([token], part.weight)
                position += 1
                continue
            if len(self._tokens) + found.vectors > CHUNK_TOKENS:
                self.close()
            self._embeddings.append(UsedEmbedding(len(self._tokens) + 1, found.name))
            self._append([PLACEHOLDER] * found.vectors, part.weight)
            position += found.tokens

    def close(self) -> None:
        """Fill the chunk with end tokens and begin the next one."""
        if len(self._chunks) == MOST_CHUNKS:
            raise PromptError(f"The prompt has more than {MOST_CHUNKS} chunks of {CHUNK_TOKENS} tokens.")
        rest = CHUNK_TOKENS - len(self._tokens)
        tokens = (START, *self._tokens, *(END,) * (rest + 1))
        weights = (1.0, *self._weights, *(1.0,) * (rest + 1))
        self._chunks.append(Chunk(tokens, weights, tuple(self._embeddings)))
        self._tokens, self._weights, self._embeddings, self._last_comma = [], [], [], None

    def finish(self) -> tuple[Chunk, ...]:
        if self._tokens or not self._chunks:
            self.close()
        return tuple(self._chunks)

    def _append(self, tokens: list[int], weight: float) -> None:
        self._tokens += tokens
        self._weights += [weight] * len(tokens)

    def _move_what_follows_the_comma(self) -> None:
        """Begin the next chunk with the tokens after the last comma, if they are few.

        As in A1111 their textual inversions stay in the closed chunk, where their vectors take the place of end tokens.
        """
        most = self._options.comma_padding_backtrack
        if most == 0 or self._last_comma is None or len(self._tokens) - self._last_comma > most:
            return
        begin = self._last_comma + 1
        tokens, weights = self._tokens[begin:], self._weights[begin:]
        self._tokens, self._weights = self._tokens[:begin], self._weights[:begin]
        self.close()
        self._tokens, self._weights = tokens, weights
