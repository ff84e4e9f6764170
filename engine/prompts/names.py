"""Names of textual inversions in a prompt: they are found in its tokens, the longest one first.

Source: A1111 1.10.1 modules/textual_inversion/textual_inversion.py `find_embedding_at_position`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.prompts.tokenizer import clip_tokenizer


@dataclass(slots=True)
class _Node:
    name: str | None = None
    following: dict[int, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """A name in a prompt."""

    name: str
    vectors: int
    """Tokens that the textual inversion takes instead."""
    tokens: int
    """Tokens of the name."""


class EmbeddingNames:
    """Textual inversions by the tokens of their names.

    Of two names with the same tokens, such as two that differ in case, the first one counts.
    """

    def __init__(self, vectors: Mapping[str, int]) -> None:
        """`vectors`: number of vectors, 1 to 75, by name."""
        self._vectors = dict(vectors)
        self._root = _Node()
        for name in vectors:
            node = self._root
            for token in clip_tokenizer().encode(name):
                node = node.following.setdefault(token, _Node())
            if node is not self._root and node.name is None:
                node.name = name

    def find(self, tokens: Sequence[int], position: int) -> Found | None:
        """The longest name that the tokens from `position` on begin with."""
        node, found = self._root, None
        for last in range(position, len(tokens)):
            following = node.following.get(tokens[last])
            if following is None:
                break
            node = following
            if node.name is not None:
                found = Found(node.name, self._vectors[node.name], last + 1 - position)
        return found
